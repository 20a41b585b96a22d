"""Memory that is too short: the block is halved, the batch and its update stay; with a real limit on the process."""

import importlib
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import backbeat as bb
from backbeat.errors import SettingsError
from backbeat.forms import smaller_block
from backbeat.mesh import Team

PROGRAM = """
import json, resource, sys
import jax, numpy as np
import backbeat as bb

limit, settings = int(sys.argv[1]), json.loads(sys.argv[2])
if "repeat" in settings:
    settings["every"] = bb.every(settings["every"]).repeat(until="loss<0.01", at_most=settings.pop("repeat"))
rng = np.random.default_rng(0)
data = rng.normal(size=(20_000, 64)).astype(np.float32), rng.integers(0, 10, 20_000)
jax.block_until_ready(jax.jit(lambda x: x + 1)(np.zeros(4)))  # so that what JAX itself takes is there
lines = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
if limit:
    most = 1024 * int(lines["VmData"].split()[0]) + (limit << 20)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
try:
    run = bb.fit("mlp:2048", data, held_out=0, evaluate="never", **settings)
except bb.errors.BackbeatError as error:
    print(json.dumps({"error": str(error)}))
else:
    theta = np.asarray(run.theta)
    print(json.dumps({"theta": theta[:: len(theta) // 500].tolist(), "notes": run.notes, "updates": run.clock.updates}))
"""
DATA_LIMIT = sys.platform == "linux"  # elsewhere a limit on a process's data does not hold, or is not to be had
pytestmark = pytest.mark.skipif(not DATA_LIMIT, reason="a process's memory can be limited on Linux only")

# float32 sums over 20,000 examples in blocks of another size: each differs by some 1e-7 of its size
ROUNDING: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-6}
JOBS: dict[str, dict[str, Any]] = {
    "the whole data set": {"every": "dataset", "duration": "3 updates", "block": 20_000},
    "adam": {"every": 16_384, "duration": "3 updates", "block": 16_384, "optimizer": "adam", "learning_rate": 1e-3},
    "repeated": {"every": "dataset", "repeat": 3, "duration": "3 updates", "block": 20_000},
    "noise watched": {"every": 16_384, "duration": "2 updates", "block": 16_384, "watch_noise": True},
}


def trained(limit: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns what a process of its own came to, that may take `limit` MiB more than JAX itself; 0 for no limit."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(limit), json.dumps(settings)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.reliability(row="memory")
@pytest.mark.parametrize("name", JOBS)
@pytest.mark.sample(1)
def test_a_batch_that_does_not_fit_is_computed_in_smaller_blocks(name: str):
    enough, short = trained(0, JOBS[name]), trained(350, JOBS[name])
    assert not any("memory" in note for note in enough["notes"])
    said = [note for note in short["notes"] if "memory was too short" in note]
    assert 1 <= len(said) == len(set(said)) <= 3  # once for each block that was too large, and not for each batch
    assert short["updates"] == enough["updates"]
    np.testing.assert_allclose(short["theta"], enough["theta"], **ROUNDING)


def test_an_evaluation_that_does_not_fit_is_computed_in_smaller_blocks(monkeypatch: pytest.MonkeyPatch):
    """As if memory were too short for 16 examples at once; the scores stay, but for rounding."""
    train = importlib.import_module("backbeat.train")
    made = train.evaluator

    def too_large(model: Any, loss: Any, block: int) -> Any:
        def fails(*_: Any) -> Any:
            raise MemoryError

        return made(model, loss, block) if block < 16 else fails

    settings: dict[str, Any] = {"every": 32, "duration": "3 epochs", "evaluate": "1 epoch"}
    whole = bb.fit("mlp:8", "digits", **settings)
    monkeypatch.setattr(train, "evaluator", too_large)
    short = bb.fit("mlp:8", "digits", **settings)
    said = [note for note in short.notes if "memory was too short" in note]
    assert (
        said[-1] == "memory was too short, so evaluations compute 8 examples at a time from here on"
    )  # 16 is too many
    assert len(said) == len(set(said))
    assert short.theta.tobytes() == whole.theta.tobytes()
    for name, column in whole.history.items():
        if name.startswith("held_out"):
            np.testing.assert_allclose(short.history[name], column, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("block", "team", "sentence"),
    [
        (1, Team(), "memory is too short for one example of this network"),
        (64, Team(deterministic=True), "leave --deterministic out"),
    ],
)
def test_where_a_block_cannot_be_smaller_it_is_said(block: int, team: Team, sentence: str):
    with pytest.raises(SettingsError, match=sentence):
        smaller_block(MemoryError(), block, team)


def test_other_errors_are_passed_on():
    with pytest.raises(ZeroDivisionError):
        smaller_block(ZeroDivisionError("by zero"), 64, Team())


@pytest.mark.slow
def test_the_blocks_of_repeated_batches_change_no_update():
    rng = np.random.default_rng(1)
    data = rng.normal(size=(70, 5)).astype(np.float32), rng.integers(0, 3, 70)
    for until in ("loss<0.9", "correct", lambda prediction, label, losses: losses < 1.0):
        one, two = (
            bb.fit("mlp:8", data, every=bb.every(32).repeat(until=until, at_most=4), block=block, duration="4 epochs")
            for block in (None, 5)
        )
        assert one.repeats is not None
        assert two.repeats is not None
        np.testing.assert_array_equal(one.repeats["updates"], two.repeats["updates"])
        np.testing.assert_allclose(one.theta, two.theta, rtol=1e-4, atol=1e-6)
        for name, column in one.repeats.items():
            np.testing.assert_allclose(column, two.repeats[name], rtol=1e-4, atol=1e-5, err_msg=name)
