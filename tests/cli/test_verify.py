"""`backbeat verify` as a user meets it: exit codes, tables, JSON, one sentence for a mistake."""

import json
from pathlib import Path

import numpy as np
import pytest

from backbeat.cli import run

MODELS = """
import jax, jax.numpy as jnp

class Net:
    def init(self, key):
        return {"out": jax.random.normal(key, (4, 3))}
    def apply(self, params, x):
        return x @ params["out"]

class Normed(Net):
    def apply(self, params, x):
        h = x @ params["out"]
        return (h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-3)

def squares(prediction, label):
    return ((prediction - label) ** 2).sum(axis=1)

def mean(prediction, label):
    return squares(prediction, label).mean()

net, normed, five = Net(), Normed(), 5
"""
STEPS = """
import torch

net = torch.nn.Linear(4, 3)

def losses(prediction, label):
    return ((prediction - label) ** 2).sum(dim=1)

def step(model, optimizer, x, y):
    optimizer.zero_grad()
    for part, values in zip(x.split(2), y.split(2)):
        (losses(model(part), values).sum() / len(x)).backward()
    optimizer.step()

def kept(model, optimizer, batches):
    for x, y in batches:
        losses(model(x), y).mean().backward()
        optimizer.step()
"""


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    """A working folder with a model file and data."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(MODELS)
    Path("broken.py").write_text("net = 1 / 0\n")
    rng = np.random.default_rng(0)
    np.savez("data.npz", x=rng.normal(size=(20, 4)).astype(np.float32), y=rng.normal(size=(20, 3)).astype(np.float32))


SMALL = ["verify", "data.npz", "--quiet"]
FEW = [*SMALL, "--examples", "7"]


def test_a_model_of_ones_own_passes(capsys):
    assert run([*FEW, "--model", "net.py:net", "--loss", "net.py:squares", "--layers"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "the update is the mean of per-example gradients" in out
    assert "last update of 1" in out
    assert "2 devices" in out
    assert " NO" not in out


def test_a_fault_is_named_and_the_exit_code_is_1(capsys):
    assert run([*FEW, "--model", "net.py:normed", "--loss", "net.py:squares"]) == 1
    out, _ = capsys.readouterr()
    assert "the update is not the mean of per-example gradients" in out
    assert "batch normalisation at out:" in out
    assert "net.py, line 13" in out


def test_json_has_all_of_it(capsys):
    assert run([*FEW, "--model", "net.py:net", "--loss", "net.py:mean", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is False
    assert [finding["cause"] for finding in found["findings"]] == ["mean of means"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "mpl"], "did you mean 'mlp'"),
        (["--model", "broken.py:net"], "broken.py, line 1"),
        (["--model", "net.py:nett"], "did you mean 'net'"),
        (["--loss", "net.py:five"], "is no function"),
        (["--loss", "cross_entorpy"], "did you mean 'cross_entropy'"),
        (["--examples", "1"], "2 or more"),
        (["--seed", "-1"], "seed=-1"),
        (["--exampels", "9"], "Did you mean --examples?"),
        (["--also", "torch"], "--step train.py:step"),
        (["--also", "jax", "--step", "net.py:net"], "also='torch'"),
        (["--step", "net.py:net"], "give it too"),
    ],
)
def test_a_mistake_is_one_sentence(capsys, arguments: list[str], said: str):
    assert run([*SMALL, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize(("step", "code", "cause"), [("step", 0, None), ("kept", 1, "forgotten zero_grad")])
@pytest.mark.sample(1)
def test_a_step_of_pytorch_is_verified_too(capsys, step: str, code: int, cause: str | None):
    pytest.importorskip("torchax", reason="PyTorch and torchax are not installed")
    Path("steps.py").write_text(STEPS)
    given = ["--model", "steps.py:net", "--also", "torch", "--step", f"steps.py:{step}", "--micro-batch", "2", "--json"]
    assert run(["verify", "data.npz", "--quiet", "--examples", "15", *given]) == code
    found = json.loads(capsys.readouterr().out)
    assert found["findings"] == []
    assert [finding["cause"] for finding in found["also"]["findings"]] == ([] if cause is None else [cause])
    assert found["passed"] is (code == 0)


def test_a_model_that_is_none_of_pytorchs_is_refused(capsys):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    Path("steps.py").write_text(STEPS)
    assert run([*FEW, "--model", "net.py:net", "--also", "torch", "--step", "steps.py:step"]) == 2
    assert "needs a model of PyTorch" in capsys.readouterr().err
