"""Exported files give what the network gives, in programs that know nothing of it; one that does not is removed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import backbeat as bb
from backbeat.errors import MissingExtraError, SettingsError
from backbeat.export import KINDS, export
from backbeat.export import write as module
from backbeat.saved import load_run

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed: pip install 'backbeat[onnx]'")
# float32 sums in another order: some 1e-7 of outputs of about 10
CLOSE: Any = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Any:
    """Runs of the two kinds of built-in networks, by name."""
    parent = tmp_path_factory.mktemp("runs")
    return {
        model: bb.fit(model, "digits", duration="2 epochs", run=parent / name)
        for model, name in (("mlp:16:gelu", "mlp"), ("cnn:4,8", "cnn"))
    }


def run_onnx(path: Path, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (inputs,) = session.get_inputs()
    return np.asarray(session.run(None, {inputs.name: x})[0])


def numpy_mlp(arrays: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The network written once more: gelu in its form with tanh."""
    x = x.reshape(len(x), -1) @ arrays["dense_0/weight"] + arrays["dense_0/bias"]
    x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return x @ arrays["dense_1/weight"] + arrays["dense_1/bias"]


@pytest.mark.parametrize("model", ["mlp:16:gelu", "cnn:4,8"])
def test_onnxruntime_gives_the_same_outputs_for_any_batch(runs, model, tmp_path):
    run = runs[model]
    done = export(load_run(run.folder), "onnx", tmp_path / "net.onnx")
    assert (done.n_checked, done.checked_on) == (359, "359 held-out examples")
    x = run.job.dataset.x
    for some in (x[:1], x[5:12], x):
        np.testing.assert_allclose(run_onnx(tmp_path / "net.onnx", some), run.predict_raw(some), **CLOSE)
    assert done.difference < 1e-4
    beside = json.loads((tmp_path / "net.onnx.json").read_text())
    inputs = {"name": "inputs", "shape": ["batch", 8, 8], "dtype": "float32", "are": "as in training"}
    assert beside["inputs"] == inputs
    assert beside["outputs"]["n"] == 10


def test_weights_are_enough_to_write_the_network_in_numpy(runs, tmp_path):
    from safetensors import safe_open

    run = runs["mlp:16:gelu"]
    done = export(load_run(run.folder), "safetensors", tmp_path / "net.safetensors")
    assert (done.difference, done.beside) == (0.0, None)
    with safe_open(tmp_path / "net.safetensors", framework="numpy") as file:
        about = json.loads(file.metadata()["backbeat"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 it is no dict
    assert about["model"] == "mlp:16:gelu"
    x = run.job.dataset.x[:50]
    np.testing.assert_allclose(numpy_mlp(arrays, x), run.predict_raw(x), **CLOSE)


def test_stablehlo_runs_in_a_process_that_knows_nothing_of_backbeat(runs, tmp_path):
    run = runs["cnn:4,8"]
    export(load_run(run.folder), "stablehlo", tmp_path / "net.stablehlo")
    np.save(tmp_path / "x.npy", run.job.dataset.x[:5])
    code = (
        "import sys, numpy; from jax import export; "
        "net = export.deserialize(bytearray(open('net.stablehlo', 'rb').read())); "
        "numpy.save('y.npy', net.call(numpy.load('x.npy'))); print(sorted(net.platforms), 'backbeat' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['cpu', 'cuda', 'tpu'] False"
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), run.predict_raw(run.job.dataset.x[:5]), **CLOSE)


def windows(x: Any) -> Any:
    """Max-pooling of images `[batch, 8, 8]` in ways that networks of other frameworks have, side by side."""
    n = x.shape[0]
    one_axis = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 1), (1, 2, 1), "VALID")
    channels_first = lax.reduce_window(x.reshape(n, 2, 4, 8), -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    overlapping_and_padded = lax.reduce_window(
        x[..., None], -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (0, 1), (0, 0))
    )
    volumes = lax.reduce_window(x.reshape(n, 4, 4, 4, 1), -jnp.inf, lax.max, (1, 2, 2, 2, 1), (1, 2, 2, 2, 1), "VALID")
    each = (one_axis, channels_first, overlapping_and_padded, volumes)
    return jnp.concatenate([pooled.reshape(n, -1) for pooled in each], axis=1)


def test_every_kind_of_max_pooling_is_run_by_onnxruntime(tmp_path):
    n_features = jax.eval_shape(windows, jax.ShapeDtypeStruct((1, 8, 8), "float32")).shape[1]

    def apply(params: Any, x: Any) -> Any:
        return windows(x) @ params["weight"]

    pair = (lambda key: {"weight": jax.random.normal(key, (n_features, 10))}, apply)
    run = bb.fit(pair, "digits", duration="1 epoch", run=tmp_path / "run")
    export(load_run(tmp_path / "run", model=pair), "onnx", tmp_path / "net.onnx")
    x = run.job.dataset.x[:9]
    np.testing.assert_allclose(run_onnx(tmp_path / "net.onnx", x), run.predict_raw(x), **CLOSE)


def test_a_torch_module_that_asks_for_the_size_of_the_batch_is_written_all_the_same(torch, tmp_path):
    nn = torch.nn
    net = nn.Sequential(
        nn.Unflatten(1, (1, 8)), nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(2),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 10),
    )  # fmt: skip
    run = bb.fit(net, "digits", duration="1 epoch", run=tmp_path / "run")
    x = run.job.dataset.x[:9]
    saved = load_run(tmp_path / "run", model=net)
    trained: Any = saved.model
    with torch.no_grad():
        own = trained.trained(saved.params).eval()(torch.tensor(x)).numpy()
    for kind in ("stablehlo", "onnx"):
        assert export(saved, kind, tmp_path / f"net.{kind}").n_checked == 359
    np.testing.assert_allclose(run_onnx(tmp_path / "net.onnx", x), own, **CLOSE)


def test_a_flax_module_whose_pooling_jax2onnx_would_refuse(tmp_path):
    nnx = pytest.importorskip("flax.nnx", reason="Flax is not installed")

    class Net(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.dense = nnx.Linear(16, 10, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.dense(nnx.max_pool(x[..., None], (2, 2), (2, 2)).reshape(x.shape[0], -1))

    net = Net(nnx.Rngs(0))
    run = bb.fit(net, "digits", duration="1 epoch", run=tmp_path / "run")
    export(load_run(tmp_path / "run", model=net), "onnx", tmp_path / "net.onnx")
    x = run.job.dataset.x[:9]
    np.testing.assert_allclose(run_onnx(tmp_path / "net.onnx", x), run.predict_raw(x), **CLOSE)


def test_a_keras_model_is_written_too(tmp_path):
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    net = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(8, "tanh"), keras.layers.Dense(10)])
    run = bb.fit(net, "digits", duration="1 epoch", run=tmp_path / "run")
    saved, x = load_run(tmp_path / "run", model=net), run.job.dataset.x[:9]
    own = np.asarray(run.trained()(x))
    for kind in ("safetensors", "stablehlo", "onnx"):
        assert export(saved, kind, tmp_path / f"net.{kind}").n_checked == 359
    np.testing.assert_allclose(run_onnx(tmp_path / "net.onnx", x), own, **CLOSE)


def test_numbers_of_tokens_are_inputs_too(tmp_path):
    x = np.random.default_rng(0).integers(0, 20, (60, 6))
    pair = (
        lambda key: {"embedding": jax.random.normal(key, (20, 3))},
        lambda params, x: params["embedding"][x].mean(axis=1),
    )
    np.savez(tmp_path / "tokens.npz", x=x, y=x.sum(axis=1) % 3)
    run = bb.fit(pair, tmp_path / "tokens.npz", duration="1 epoch", run=tmp_path / "run")
    done = export(load_run(tmp_path / "run", model=pair), "onnx", tmp_path / "net.onnx")
    assert json.loads((tmp_path / "net.onnx.json").read_text())["inputs"]["dtype"] == "int32"
    assert done.checked_on == "12 held-out examples"
    x = x.astype(np.int32)
    np.testing.assert_allclose(run_onnx(tmp_path / "net.onnx", x), run.predict_raw(x), **CLOSE)


def test_pixels_are_inputs_of_an_image_network(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (60, 6, 6), np.uint8)
    np.savez(tmp_path / "pixels.npz", x=x, y=np.arange(60) % 2)
    run = bb.fit("linear", tmp_path / "pixels.npz", duration="1 epoch", run=tmp_path / "run")
    export(load_run(tmp_path / "run"), "onnx", tmp_path / "net.onnx")
    np.testing.assert_allclose(run_onnx(tmp_path / "net.onnx", x), run.predict_raw(x.astype(np.float32) / 255), **CLOSE)


def test_values_of_a_table_leave_the_file_in_their_own_units(tmp_path):
    import polars as pl

    width = np.random.default_rng(0).normal(50, 10, 100)
    pl.DataFrame({"width": width, "price": 1000 * width + 5}).write_csv(tmp_path / "prices.csv")
    bb.fit(
        "linear", tmp_path / "prices.csv", label="price", duration="5 epochs", run=tmp_path / "run", learning_rate=1e-3
    )
    saved = load_run(tmp_path / "run")
    export(saved, "onnx", tmp_path / "net.onnx")
    step = json.loads((tmp_path / "net.onnx.json").read_text())["preparation"][0]
    x = ((width - step["less"]) / step["divided_by"]).astype(np.float32)[:, None]  # as the file beside it says
    np.testing.assert_allclose(
        run_onnx(tmp_path / "net.onnx", x)[:, 0], saved.predict(tmp_path / "prices.csv"), rtol=1e-5
    )


def test_a_network_that_cannot_be_written_is_one_sentence_and_leaves_nothing(tmp_path):
    pair = (
        lambda key: {"weight": jnp.ones((64, 10))},
        lambda params, x: (
            jnp.linalg.svd(x.reshape(x.shape[0], 8, 8), compute_uv=False)
            @ params["weight"][:8]
            * (1 if x.shape[0] < 7 else 2)
        ),  # asks for the number of examples
    )
    bb.fit(pair, "digits", duration="1 update", run=tmp_path / "run")
    saved = load_run(tmp_path / "run", model=pair)
    for kind in ("onnx", "stablehlo"):
        with pytest.raises(SettingsError, match=rf"^this network cannot be written as {kind} \([^\n]+\); [^\n]+\.$"):
            export(saved, kind, tmp_path / f"net.{kind}")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_with_other_outputs_is_removed(runs, kind, tmp_path, monkeypatch):
    run = module._runner
    monkeypatch.setattr(module, "_runner", lambda *given: lambda x: run(*given)(x) + np.float32(0.01))
    path = tmp_path / f"net.{kind}"
    path.write_text("what was there before")
    with pytest.raises(
        SettingsError, match=r"outputs differ from the network's own by up to 0\.01.*, so it is not kept"
    ):
        export(load_run(runs["mlp:16:gelu"].folder), kind, path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "what was there before"


def test_outputs_that_are_not_finite_are_no_agreement():
    with pytest.raises(module.Unfit, match="differ"):
        module.compared(lambda x: x * np.nan, np.ones((3, 2), np.float32), np.ones((3, 2), np.float32), "onnx")
    with pytest.raises(module.Unfit, match=r"gives outputs of shape \[3, 1\]"):
        module.compared(lambda x: x[:, :1], np.ones((3, 2), np.float32), np.ones((3, 2), np.float32), "onnx")


def test_without_the_run_s_data_random_inputs_serve_and_it_is_said(tmp_path):
    x = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    bb.fit("mlp:4", (x, x[:, :2]), duration="1 epoch", run=tmp_path / "run")
    done = export(load_run(tmp_path / "run"), "stablehlo")
    assert done.checked_on == "256 random inputs"
    assert "arrays in memory" in done.notes[0]
    assert done.path == tmp_path / "run" / "exported.stablehlo"


def test_what_is_not_installed_is_named(runs, monkeypatch, tmp_path):
    for name in ("onnxruntime", "jax2onnx"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, name, None)
            with pytest.raises(MissingExtraError, match=rf"needs {name}.*pip install 'backbeat\[onnx\]'"):
                export(load_run(runs["cnn:4,8"].folder), "onnx", tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("onxx", "net.onnx", "did you mean 'onnx'"),
        ("onnx", "net.pb", "must end in .onnx"),
        ("onnx", "none/net.onnx", "cannot be written"),
    ],
)
def test_wrong_wishes_are_one_sentence(runs, kind, name, words, tmp_path):
    with pytest.raises(SettingsError, match=rf"^[^\n]*{words}[^\n]*[.?]$"):
        export(load_run(runs["mlp:16:gelu"].folder), kind, tmp_path / name)


def test_the_run_s_own_weights_are_never_replaced(runs):
    folder = runs["mlp:16:gelu"].folder
    with pytest.raises(SettingsError, match="would replace what the run itself keeps"):
        export(load_run(folder), "safetensors", folder / "model.safetensors")


@pytest.mark.slow
def test_nothing_is_printed_beside_the_answer(runs):
    """jax2onnx logs tracebacks about libraries that it could use."""
    command = [sys.executable, "-m", "backbeat", "export", str(runs["cnn:4,8"].folder), "--to", "onnx"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert done.stderr == ""
    assert done.stdout.startswith("checked on 359 held-out examples: its outputs differ")
