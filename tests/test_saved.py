"""A run read back from its folder predicts as it did; a folder that is damaged, or is no run, is one sentence."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import backbeat as bb
from backbeat.assess import assess, held_out
from backbeat.data import Dataset, from_arrays
from backbeat.errors import BackbeatError, DataError, DivergedError, SettingsError
from backbeat.saved import SavedRun, load_run


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Any:
    """A run on the digits."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    return bb.fit("mlp:16:tanh", "digits", duration="3 epochs", run=folder)


@pytest.fixture
def copy(digits, tmp_path) -> Path:
    """A copy of its folder, to be damaged."""
    shutil.copytree(digits.folder, tmp_path / "run")
    return tmp_path / "run"


def arrays(n: int = 90) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((n, 3)).astype(np.float32)
    return x, x[:, 0] - 2 * x[:, 1]


def test_it_predicts_what_the_run_predicted(digits):
    saved, x = load_run(digits.folder), digits.job.dataset.x
    assert jax.tree.structure(saved.params) == jax.tree.structure(digits.params)
    # the run predicts in blocks of another size: sums of float32 in another order
    np.testing.assert_allclose(saved.outputs(x), digits.predict_raw(x), rtol=1e-5, atol=1e-5)
    assert saved.predict("digits").tolist() == digits.predict(x).tolist()


def test_no_prediction_depends_on_what_is_beside_it(digits):
    saved, x = load_run(digits.folder), digits.job.dataset.x
    whole = saved.outputs(x[:600])
    for some in (slice(0, 1), slice(3, 7), slice(250, 515)):
        np.testing.assert_array_equal(saved.outputs(x[some]), whole[some])


def test_probabilities_are_those_of_the_softmax_in_numpy(digits):
    saved = load_run(digits.folder)
    logits = saved.outputs(digits.job.dataset.x[:50]).astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Any = saved.probabilities(logits)
    np.testing.assert_allclose(found, powers / powers.sum(axis=1, keepdims=True), rtol=1e-12)


def test_names_of_classes_come_back(tmp_path):
    x, y = arrays()
    run = bb.fit("linear", (x, np.where(y > 0, "über", "unter")), duration="5 epochs", run=tmp_path / "run")
    saved = load_run(tmp_path / "run")
    assert saved.classes == ("unter", "über")
    assert saved.predict((x, y)).tolist() == run.predict(x).tolist()
    assert set(saved.predict((x, y))) <= {"über", "unter"}


@pytest.mark.parametrize("outputs", [1, 2])
def test_values_come_back_in_the_shape_of_the_labels(tmp_path, outputs):
    x, y = arrays()
    y = y if outputs == 1 else np.stack([y, -y], axis=1)
    run = bb.fit("linear", (x, y), duration="5 epochs", run=tmp_path / "run")
    found = load_run(tmp_path / "run").predict((x, y))
    assert found.shape == y.shape
    np.testing.assert_allclose(found, run.predict(x), rtol=1e-5, atol=1e-6)  # another block: another order of sums


def test_labels_of_0_and_1_are_decided_at_one_half(tmp_path):
    x, y = arrays()
    both = np.stack([y > 0, x[:, 2] > 0], axis=1).astype(np.int32)
    for label in (both[:, 0], both):
        folder = tmp_path / f"run{label.ndim}"
        bb.fit("linear", (x, label), loss="binary_cross_entropy", duration="5 epochs", run=folder)
        saved = load_run(folder)
        shares = saved.probabilities(saved.outputs(x))
        assert shares is not None
        assert shares.shape == label.shape
        logits = saved.outputs(x).reshape(label.shape).astype(np.float64)
        np.testing.assert_allclose(shares, 1 / (1 + np.exp(-logits)), rtol=1e-12)
        assert saved.predict((x, label)).tolist() == (shares > 0.5).astype(int).tolist()


def test_a_scalar_parameter_and_a_network_of_functions(tmp_path):
    x, _ = arrays()

    def network(slope: float = 0.0) -> Any:
        return (
            lambda key: {"slope": jax.numpy.full((), slope), "shift": [jax.numpy.zeros(1)]},
            lambda params, x: params["slope"] * x[:, :1] + params["shift"][0],
        )

    run = bb.fit(network(), (x, 3 * x[:, 0] + 1), duration="20 epochs", run=tmp_path / "run")
    with pytest.raises(SettingsError, match=r"network of your own .* load_run\(folder, model="):
        load_run(tmp_path / "run")
    saved = load_run(tmp_path / "run", model=network())
    assert sorted(load_file(tmp_path / "run" / "model.safetensors")) == ["shift/0", "slope"]
    assert float(saved.params["slope"]) == float(run.params["slope"])
    np.testing.assert_allclose(saved.predict((x, x)), run.predict(x), rtol=1e-6)


def test_code_that_a_folder_names_is_not_run_unless_it_is_named_again(tmp_path):
    code = tmp_path / "net.py"
    code.write_text(
        "import pathlib\n"
        "pathlib.Path(__file__).with_name('was run').touch()\n"
        "import backbeat\n"
        "net = backbeat.mlp(hidden=(4,))\n"
    )
    run = bb.fit(f"{code}:net", "digits", duration="1 epoch", run=tmp_path / "run")
    (tmp_path / "was run").unlink()
    with pytest.raises(SettingsError, match=rf"add --model {code}:net if you trust it\.$"):
        load_run(tmp_path / "run")
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    record["saved"]["model"] = f"{code}:net"  # a folder that was made to look as if it were a built-in network's
    (tmp_path / "run" / "record.json").write_text(json.dumps(record))
    with pytest.raises(SettingsError, match="if you trust it"):
        load_run(tmp_path / "run")
    assert not (tmp_path / "was run").exists()
    saved = load_run(tmp_path / "run", model=f"{code}:net")
    assert saved.predict("digits").tolist() == run.predict(run.job.dataset.x).tolist()


def test_a_run_that_diverged_says_so_and_has_its_last_finite_weights(tmp_path):
    x, y = arrays()
    with pytest.raises(DivergedError):
        bb.fit("linear", (x * 100, y), learning_rate=10, duration="50 epochs", run=tmp_path / "run")
    saved = load_run(tmp_path / "run")
    assert "diverged" in saved.notes[0]
    assert np.isfinite(saved.outputs(x)).all()


def cut_weights(run: Path) -> None:
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-50])


def corrupt_header(run: Path) -> None:
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:8] + b"{" * 40 + path.read_bytes()[48:])


def change_weights(change: Any) -> Any:
    def make(run: Path) -> None:
        arrays = load_file(run / "model.safetensors")
        change(arrays)
        save_file(arrays, run / "model.safetensors")

    return make


def change_record(change: Any) -> Any:
    def make(run: Path) -> None:
        record = json.loads((run / "record.json").read_text())
        change(record)
        (run / "record.json").write_text(json.dumps(record))

    return make


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(cut_weights, "model.safetensors cannot be read", id="cut"),
        pytest.param(corrupt_header, "model.safetensors cannot be read", id="header"),
        pytest.param(lambda run: (run / "model.safetensors").unlink(), "cannot be read", id="no weights"),
        pytest.param(change_weights(lambda a: a.pop("dense_1/bias")), "'dense_1/bias' the file has none", id="fewer"),
        pytest.param(change_weights(lambda a: a.update(more=np.zeros(1))), "'more' the network has none", id="more"),
        pytest.param(
            change_weights(lambda a: a.update({"dense_1/bias": np.zeros(3)})),
            "dense_1/bias has the shape [3] in the file and [10] in the network",
            id="shape",
        ),
        pytest.param(lambda run: (run / "record.json").unlink(), "is a run that is not finished", id="unfinished"),
        pytest.param(lambda run: (run / "record.json").write_text("{"), "is damaged", id="record"),
        pytest.param(change_record(lambda r: r.pop("saved")), "did not keep what predicting needs", id="old"),
        pytest.param(change_record(lambda r: r["saved"].pop("loss_kind")), "is damaged", id="half"),
        pytest.param(change_record(lambda r: r["saved"].update(model="mpl:3")), "mpl:3", id="model"),
        pytest.param(change_record(lambda r: r["saved"].update(n_outputs="many")), "is damaged", id="type"),
        pytest.param(change_record(lambda r: r["saved"].update(prepared=True)), "preparation.zip", id="preparation"),
        pytest.param(lambda run: shutil.rmtree(run), "is not there", id="gone"),
        pytest.param(lambda run: (shutil.rmtree(run), run.write_text("")), "is a file", id="file"),
    ],
)
def test_a_damaged_folder_is_one_sentence(copy, damage, words):
    damage(copy)
    with pytest.raises(BackbeatError, match=r"^[^\n]+[.?]$") as caught:
        load_run(copy)
    assert words in str(caught.value)


def test_a_comparison_is_no_run(tmp_path):
    (tmp_path / "record.json").write_text(
        json.dumps(
            {"kind": "comparison", "format": 1, "data": {}, "model": "", "answer": [], "cadences": [], "equal": {}}
        )
    )
    with pytest.raises(DataError, match=r"is a comparison, which keeps no weights"):
        load_run(tmp_path)


def test_inputs_of_another_shape_are_refused(digits):
    saved = load_run(digits.folder)
    with pytest.raises(DataError, match=r"the shape \[7\], but the run was trained on \[8, 8\]"):
        saved.predict((np.zeros((3, 7), np.float32), np.zeros(3, np.int32)))


def test_the_held_out_part_scores_what_it_scored_in_training(digits):
    found = assess(load_run(digits.folder))
    newest = {name: column[-1] for name, column in digits.history.items()}
    # the same sums by the same program: only a division is left to round
    assert found.scores["loss"] == pytest.approx(newest["held_out_loss_mean"], rel=1e-6)
    assert found.scores["accuracy"] == pytest.approx(newest["held_out_accuracy"], rel=1e-6)


def test_scores_of_classes_are_those_counted_by_hand(digits):
    found = assess(load_run(digits.folder))
    part = digits.job.split.held_out
    truth, guess = digits.job.dataset.y[part], digits.predict(digits.job.dataset.x[part])
    assert found.confusion is not None
    for number, row in enumerate(found.rows):
        hits = np.sum((truth == number) & (guess == number))
        assert row["support"] == np.sum(truth == number)
        assert row["recall"] == pytest.approx(hits / np.sum(truth == number))
        assert row["precision"] == pytest.approx(hits / np.sum(guess == number))
        assert row["f1"] == pytest.approx(2 * hits / (np.sum(truth == number) + np.sum(guess == number)))
        for other in range(10):
            assert found.confusion[number, other] == np.sum((truth == number) & (guess == other))
    assert found.scores["f1_macro"] == pytest.approx(np.mean([row["f1"] for row in found.rows]))


def test_scores_of_values_are_those_of_numpy(tmp_path):
    x, y = arrays(200)
    np.savez(tmp_path / "values.npz", x=x, y=np.stack([y, y**2], axis=1))
    run = bb.fit("mlp:8", tmp_path / "values.npz", learning_rate=0.02, duration="10 epochs", run=tmp_path / "run")
    found = assess(load_run(tmp_path / "run"))
    part = run.job.split.held_out
    truth, guess = run.job.dataset.y[part].astype(np.float64), run.predict(run.job.dataset.x[part]).astype(np.float64)
    for i, row in enumerate(found.rows):
        error = truth[:, i] - guess[:, i]
        # predictions of another block differ by 1e-6 or so, and the scores are sums of their errors
        assert row["mse"] == pytest.approx(np.mean(error**2), rel=1e-4)
        assert row["mae"] == pytest.approx(np.mean(abs(error)), rel=1e-4)
        assert row["r2"] == pytest.approx(
            1 - np.sum(error**2) / np.sum((truth[:, i] - truth[:, i].mean()) ** 2), rel=1e-4
        )
    assert found.scores["r2"] == pytest.approx(run.history["held_out_r2"][-1], rel=1e-5)
    assert found.scores["mse"] == pytest.approx(run.history["held_out_mse"][-1], rel=1e-5)


def test_the_run_s_own_data_is_said_to_be_so(digits):
    assert any("is what the run was trained on" in note for note in assess(load_run(digits.folder), "digits").notes)


def test_data_that_has_changed_is_refused_unless_it_is_named(tmp_path):
    x, y = arrays()
    path = tmp_path / "data.npz"
    np.savez(path, x=x, y=y)
    bb.fit("linear", path, duration="1 epoch", run=tmp_path / "run")
    saved = load_run(tmp_path / "run")
    assert len(held_out(saved)) == 18
    np.savez(path, x=x, y=y + 1)
    with pytest.raises(DataError, match=r"data.npz has changed since the run.*name the data to evaluate"):
        assess(saved)
    assert assess(saved, path).n == 90
    path.unlink()
    with pytest.raises(DataError, match="is not there"):
        assess(saved)


@pytest.mark.parametrize(("share", "words"), [(0.2, "arrays in memory"), (0, "arrays in memory")])
def test_a_run_without_a_held_out_part_to_read_again(tmp_path, share, words):
    bb.fit("linear", arrays(), duration="1 epoch", held_out=share, run=tmp_path / "run")
    with pytest.raises(DataError, match=words):
        assess(load_run(tmp_path / "run"))


def test_labels_that_training_never_saw_are_counted_and_refused(tmp_path):
    x, y = arrays()
    names = np.where(y > 0, "b", "a")
    bb.fit("linear", (x, names), duration="1 epoch", run=tmp_path / "names")
    new = names.copy().astype("<U9")
    new[:4] = "c"
    with pytest.raises(DataError, match=r"4 of 90 labels are c, which training never saw \(it saw a, b\)"):
        assess(load_run(tmp_path / "names"), (x, new))
    bb.fit("linear", (x, (y > 0).astype(np.int32)), duration="1 epoch", run=tmp_path / "numbers")
    with pytest.raises(DataError, match=r"2 of 90 labels are 7, which training never saw \(it saw 0 to 1\)"):
        assess(load_run(tmp_path / "numbers"), (x, np.where(np.arange(90) < 2, 7, 1)))


def test_names_in_another_order_and_fewer_of_them_are_the_same_classes(tmp_path):
    x, y = arrays()
    names = np.where(y > 0.5, "c", np.where(y < -0.5, "b", "a"))
    bb.fit("linear", (x, names), duration="20 epochs", run=tmp_path / "run")
    saved = load_run(tmp_path / "run")
    only = names != "a"
    found = assess(saved, (x[only], names[only]))
    assert found.scores["accuracy"] == pytest.approx(np.mean(saved.predict((x[only], names[only])) == names[only]))
    assert found.rows[0]["support"] == 0
    assert np.isnan(found.rows[0]["recall"])


def test_ignored_labels_do_not_count(tmp_path):
    x, y = arrays()
    label = np.where(np.arange(90) % 3 == 0, -1, (y > 0).astype(int))
    bb.fit("linear", (x, label), loss="cross_entropy:ignore=-1", duration="2 epochs", run=tmp_path / "run")
    found = assess(load_run(tmp_path / "run"), (x, label))
    assert found.confusion is not None
    assert found.confusion.sum() == 60


def test_importing_it_is_light_and_reading_back_needs_no_sklearn(digits):
    code = (
        "import sys; from backbeat.saved import load_run; import numpy; "
        f"saved = load_run({str(digits.folder)!r}); saved.outputs(numpy.zeros((1, 8, 8), 'float32')); "
        "print(sorted({'sklearn', 'polars', 'torch', 'flax', 'matplotlib', 'skops'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_saved_run_is_what_it_says(digits):
    saved = load_run(digits.folder)
    assert isinstance(saved, SavedRun)
    assert (saved.kind, saved.input_shape, saved.n_outputs) == ("classification", (8, 8), 10)
    assert isinstance(from_arrays([[0.0], [1.0]], [0, 1]), Dataset)
