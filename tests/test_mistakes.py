"""What a run gets wrong: counts and losses against NumPy and scikit-learn, pictures against their own pixels."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import backbeat as bb
from backbeat import mistakes
from backbeat.assess import assess
from backbeat.config import Settings, resolve
from backbeat.errors import DivergedError, StorageError
from backbeat.mistakes import SHOWN, found_mistakes
from backbeat.recorded import read_mistakes
from backbeat.saved import load_run

KEY = jax.random.key(0)


def losses_of(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=-1)) - np.take_along_axis(shifted, y[..., None], axis=-1)[..., 0]


def pixels(picture: str) -> np.ndarray:
    from PIL import Image

    kind, _, data = picture.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_the_digits_that_are_taken_for_others(tmp_path: Path):
    run = bb.fit("mlp:16", "digits", duration="2 epochs", run=tmp_path / "run")
    found = read_mistakes(tmp_path / "run")
    assert found is not None
    assessed = assess(load_run(tmp_path / "run"))
    assert assessed.confusion is not None
    assert found["confusion"] == assessed.confusion.tolist()
    assert (found["part"], found["n"], found["of"], found["updates"]) == ("held-out", 359, 359, run.clock.updates)
    assert found["n_wrong"] == round(359 * (1 - run.history["held_out_accuracy"][-1]))
    held_out, data = np.asarray(run.job.split.held_out), run.job.dataset
    logits = run.predict_raw(data.x[held_out])
    wrong = np.flatnonzero(logits.argmax(axis=1) != data.y[held_out])
    losses = losses_of(logits.astype(np.float64), data.y[held_out])
    order = wrong[np.argsort(-losses[wrong])][:SHOWN]
    assert [one["number"] for one in found["worst"]] == held_out[order].tolist()
    np.testing.assert_allclose([one["loss"] for one in found["worst"]], losses[order], rtol=1e-4)  # float32
    assert [one["label"] for one in found["worst"]] == [str(label) for label in data.y[held_out[order]]]
    assert [one["prediction"] for one in found["worst"]] == [str(label) for label in logits[order].argmax(axis=1)]
    likely = np.exp(logits[order] - np.logaddexp.reduce(logits[order], axis=1)[:, None]).max(axis=1)
    np.testing.assert_allclose([one["probability"] for one in found["worst"]], likely, rtol=1e-4)
    shown = np.stack([pixels(one["picture"]) for one in found["worst"]]).astype(float)
    inputs = data.x[held_out[order]]
    np.testing.assert_allclose(shown / 255, inputs / inputs.max(), atol=0.5 / 255 + 1e-6)  # half a grey level


def test_values_are_in_their_own_units_and_without_held_out_the_training_part_is_looked_at(tmp_path: Path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    table = "a,b,c,price\n" + "\n".join(
        ",".join(map(str, [*row, 5000 + 900 * row[0] + 50 * rng.normal()])) for row in x
    )
    (tmp_path / "houses.csv").write_text(table)
    run = bb.fit("linear", tmp_path / "houses.csv", label="price", held_out=0, duration="20 epochs", run=tmp_path / "r")
    found = read_mistakes(tmp_path / "r")
    assert found is not None
    assert (found["part"], found["n"], found["kind"], found["names"]) == ("training", 300, "regression", ["price"])
    prices = np.array([float(line.rpartition(",")[2]) for line in table.splitlines()[1:]])
    guesses = np.ravel(run.predict(tmp_path / "houses.csv"))
    order = np.argsort(-np.abs(prices - guesses))[:SHOWN]
    assert [one["number"] for one in found["worst"]] == order.tolist()
    np.testing.assert_allclose([one["label"] for one in found["worst"]], prices[order, None], rtol=1e-5)
    np.testing.assert_allclose([one["prediction"] for one in found["worst"]], guesses[order, None], rtol=1e-4)
    assert {one["picture"] for one in found["worst"]} == {None}
    assert "confusion" not in found


def job_of(x: Any, y: Any, model: Any = "linear", **settings: Any) -> Any:
    return resolve(model, (x, y), Settings(**{"held_out": 0, "every": 1, **settings}))


def with_outputs(outputs: np.ndarray) -> tuple:
    """Returns a network that gives these outputs, whose inputs are the numbers of the rows."""
    return (lambda key: {"table": outputs.astype(np.float32)}, lambda params, x: params["table"][x[:, 0].astype(int)])


def test_labels_that_do_not_count_are_not_counted_and_of_many_a_sentence_is_said():
    rng = np.random.default_rng(1)
    outputs, y = rng.normal(size=(40, 5, 3)), rng.integers(-1, 3, size=(40, 5))
    job = job_of(np.arange(40.0)[:, None], y, with_outputs(outputs), loss="cross_entropy:ignore=-1")
    found = found_mistakes(job, job.model.init(KEY))
    counts = y >= 0
    wanted = np.zeros((3, 3), int)
    np.add.at(wanted, (y[counts], outputs.argmax(axis=-1)[counts]), 1)
    assert found["confusion"] == wanted.tolist()
    assert found["n_labels"] == counts.sum()
    element = losses_of(outputs, np.maximum(y, 0)) * counts
    mean = element.sum(axis=1) / counts.sum(axis=1)
    missed = ((outputs.argmax(axis=-1) != y) & counts).any(axis=1)
    order = [k for k in np.argsort(-mean) if missed[k]][:SHOWN]
    assert [one["number"] for one in found["worst"]] == order
    first = order[0]
    n, right = counts[first].sum(), (counts[first] & (outputs[first].argmax(axis=-1) == y[first])).sum()
    assert found["worst"][0]["label"] == f"{n} labels"
    assert found["worst"][0]["prediction"] == f"{n - right} of them wrong"


def test_of_many_classes_the_most_frequent_confusions_are_told():
    outputs = np.full((100, 50), -5.0)
    y = np.arange(100) % 50
    outputs[np.arange(100), y] = 5
    outputs[:, 49][y < 10] = 9  # twice each: 0 to 9 are taken for 49
    outputs[3, 49], outputs[3, 48] = -5, 9
    job = job_of(np.arange(100.0)[:, None], y, with_outputs(outputs))
    found = found_mistakes(job, job.model.init(KEY))
    assert "confusion" not in found
    assert found["n_wrong"] == 20
    assert sorted(found["confused"]) == sorted([*([k, 49, 2] for k in range(10) if k != 3), [3, 49, 1], [3, 48, 1]])


def test_labels_of_several_kinds_are_named():
    outputs = np.array([[3.0, -3], [-1, 2], [-4, 4], [2, 2]])
    y = np.array([[1.0, 0], [1, 0], [0, 1], [0, 0]])
    job = job_of(np.arange(4.0)[:, None], y, with_outputs(outputs), loss="binary_cross_entropy")
    found = found_mistakes(job, job.model.init(KEY))
    assert [(one["number"], one["label"], one["prediction"]) for one in found["worst"]] == [
        (3, "none", "0, 1"), (1, "0", "1"),
    ]  # fmt: skip
    assert (found["n_labels"], found["n_wrong"]) == (8, 4)


def test_a_loss_of_ones_own_ranks_the_examples():
    def cubed(prediction: Any, label: Any) -> Any:
        return abs(prediction - label[:, None]).sum(axis=1) ** 3

    outputs, y = np.array([[1.0, 2], [5, 5], [0, 0]]), np.array([1.0, 1, 0])
    job = job_of(np.arange(3.0)[:, None], y, with_outputs(outputs), loss=cubed)
    found = found_mistakes(job, job.model.init(KEY))
    assert [(one["number"], one["loss"]) for one in found["worst"]] == [(1, 512.0), (0, 1.0), (2, 0.0)]
    assert "label" not in found["worst"][0]


@pytest.mark.parametrize(("shape", "drawn"), [
    ((6, 5), (6, 5)), ((6, 5, 1), (6, 5)), ((6, 5, 3), (6, 5, 3)), ((3, 6, 5), (6, 5, 3)), ((1, 6, 5), (6, 5)),
    ((200, 100), (96, 48)), ((12,), None), ((6, 5, 4), None), ((2, 50), None),
])  # fmt: skip
def test_what_looks_like_images_is_drawn(shape: tuple[int, ...], drawn: tuple[int, ...] | None):
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    made = mistakes._pictures(x)
    if drawn is None:
        assert made == [None] * 3
        return
    shown = [pixels(picture) for picture in made if picture is not None]
    assert [each.shape for each in shown] == [drawn] * 3
    if max(drawn) < 96:
        turned = np.moveaxis(x, 1, 3) if shape[0] in (1, 3) else x
        grey = (turned - x.min()) / (x.max() - x.min()) * 255
        np.testing.assert_allclose(np.stack(shown).reshape(grey.shape), grey, atol=0.501)


def test_a_large_part_is_looked_at_in_places_that_are_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mistakes, "_MOST", 100)
    job = resolve("mlp:4", "digits", Settings())
    found = found_mistakes(job, job.model.init(KEY))
    assert (found["n"], found["of"], found["n_labels"]) == (100, 359, 100)


def test_on_the_way_it_is_written_too_and_the_run_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mistakes, "_SECONDS", 0.0)
    monkeypatch.setattr(mistakes, "_SHARE", 1e9)
    seen = []

    def look(event: object) -> None:
        found = read_mistakes(tmp_path / "run")
        seen.append(None if found is None else found["updates"])

    settings: dict[str, Any] = {"duration": "3 epochs", "evaluate": "1 epoch"}
    run = bb.fit("mlp:8", "digits", run=tmp_path / "run", on_event=look, **settings)
    assert [updates for updates in dict.fromkeys(seen) if updates is not None] == [0, 45, 90, 135]
    np.testing.assert_array_equal(run.theta, bb.fit("mlp:8", "digits", **settings).theta)


def test_where_memory_is_short_the_run_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def short(job: object, params: object) -> None:
        raise MemoryError

    monkeypatch.setattr(mistakes, "found_mistakes", short)
    bb.fit("mlp:8", "digits", duration="1 epoch", run=tmp_path / "run")
    found = read_mistakes(tmp_path / "run")
    assert found is not None
    assert "memory was too short" in found["left_out"]


def test_a_full_disk_is_one_sentence(tmp_path: Path):
    job = resolve("mlp:4", "digits", Settings())
    consumer = mistakes.Mistakes(tmp_path / "gone", job)
    with pytest.raises(StorageError, match="cannot be written"):
        consumer._look(job.model.init(KEY), bb.fit("linear", duration="1 update").clock)


def test_what_is_damaged_is_not_known(tmp_path: Path):
    for text in ('{"format": 1, "wor', "[]", json.dumps({"format": 2})):
        (tmp_path / "mistakes.json").write_text(text)
        assert read_mistakes(tmp_path) is None


def test_images_of_a_folder_are_shown_in_their_colours(tmp_path: Path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for k in range(12):
            Image.fromarray(rng.integers(0, 256, (10, 8, 3), dtype=np.uint8)).save(
                tmp_path / "pets" / name / f"{k}.png"
            )
    run = bb.fit("linear", tmp_path / "pets", every=4, held_out=0.5, duration="1 epoch", run=tmp_path / "run")
    found = read_mistakes(tmp_path / "run")
    assert found is not None
    assert found["names"] == ["cat", "dog"]
    assert found["worst"], "noise is not recognised without a mistake"
    inputs = np.asarray(run.job.dataset.x)[[one["number"] for one in found["worst"]]]
    shown = np.stack([pixels(one["picture"]) for one in found["worst"]])
    grey = (inputs - inputs.min()) / (inputs.max() - inputs.min()) * 255
    np.testing.assert_allclose(shown, grey, atol=0.501)
    assert {one["label"] for one in found["worst"]} <= {"cat", "dog"}


def test_of_a_run_that_diverged_the_last_finite_weights_are_looked_at(tmp_path: Path):
    with pytest.raises(DivergedError) as raised:
        bb.fit("mlp:8", "digits", loss="squared_error", learning_rate=1e6, duration="2 epochs", run=tmp_path / "run")
    found = read_mistakes(tmp_path / "run")
    assert found is not None
    run: Any = raised.value.run
    assert found["updates"] == run.clock.updates
    assert len(found["worst"]) == SHOWN
