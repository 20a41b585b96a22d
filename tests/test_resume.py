"""Runs that are cut off and gone on with: the bits of the weights are those of a run that was not."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import backbeat as bb
from backbeat.checkpoint import SUMS, numbered
from backbeat.config import Settings, resolve
from backbeat.done import Run
from backbeat.errors import DivergedError, SettingsError, StorageError, Terminated
from backbeat.events import Diverged, Noted, StretchDone
from backbeat.history import Account
from backbeat.record import Recorder, list_runs
from backbeat.train import events_of

BASE: Any = {
    "seed": 3, "duration": "6 epochs", "checkpoint": "50 updates", "keep": 100, "evaluate": "1 epoch",
}  # fmt: skip


def leaves(run: Run) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(run.params)]


def same_bits(one: Run, other: Run) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(leaves(one), leaves(other), strict=True))


def same_history(one: Run, other: Run) -> bool:
    """Returns whether two histories say the same where the run was evaluated: where stretches end depends on time."""
    names = [name for name in one.history if name == "updates" or name.startswith(("train_", "held_out_"))]
    rows = [np.isfinite(run.history["train_loss_mean"]) for run in (one, other)]
    return all(np.array_equal(one.history[name][rows[0]], other.history[name][rows[1]]) for name in names)


def cut_off(folder: Path, checkpoint: Path) -> None:
    """Makes of a finished run's folder what SIGKILL right after a checkpoint would have left."""
    for path in numbered(folder):
        if path.name > checkpoint.name:
            shutil.rmtree(path)
    (folder / "record.json").unlink(missing_ok=True)
    (folder / "model.safetensors").unlink(missing_ok=True)


CASES: Any = {
    "sgd": {},
    "adam, cosine, warm-up": {"optimizer": "adam", "learning_rate": 0.01, "schedule": "cosine", "warm_up": "2 epochs"},
    "one example": {"every": 1, "duration": "2 epochs", "checkpoint": "500 updates"},
    "the whole data set": {"every": "dataset", "duration": "40 updates", "checkpoint": "10 updates"},
    "changing": {"every": "16 then 64 after 2 epochs then dataset after 4 epochs"},
    "carried over": {"every": 100, "short_batch": "carry"},
    "dropped": {"every": 100, "short_batch": "drop", "checkpoint": "20 updates"},
    "with replacement": {"order": "with replacement"},
    "in blocks": {"every": 64, "block": 24, "checkpoint": "30 updates"},
    "noise": {"every": "noise 8 to 128", "duration": "4 epochs"},
    "watched": {"watch_noise": True, "watch_gradient": True},
    "own rule": {"optimizer": optax.chain(optax.add_noise(0.01, 0.5, 7), optax.sgd(0.05, momentum=0.9))},
    "repeated": {
        "every": bb.every(1).repeat(until="loss<0.3", at_most=6),
        "duration": "1 epochs",
        "checkpoint": "97 updates",
    },
    "target": {"target": "accuracy>=0.93", "duration": "50 epochs"},
    "halved": {"loss": "squared_error", "learning_rate": 3.0, "on_divergence": "halve-lr"},
}


@pytest.mark.reliability(row="resumed")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.sample(5)
def test_a_run_that_is_gone_on_with_has_the_same_bits(name: str, tmp_path: Path, record_property: Any):
    record_property("tried", 3)
    settings = BASE | CASES[name]
    whole = bb.fit("mlp:16", "digits", run=tmp_path / "a", **settings)
    points = numbered(tmp_path / "a")
    assert len(points) >= 3
    for point in (points[0], points[len(points) // 2], points[-1]):
        folder = tmp_path / point.name
        shutil.copytree(tmp_path / "a", folder)
        cut_off(folder, folder / "checkpoints" / point.name)
        again = bb.fit("mlp:16", "digits", resume=folder, **settings)
        assert same_bits(whole, again), point.name
        assert again.clock.updates == whole.clock.updates
        assert again.reason == whole.reason
        assert np.array_equal(again.history["train_loss_mean"][-1], whole.history["train_loss_mean"][-1])
        assert (folder / "model.safetensors").read_bytes() == (tmp_path / "a" / "model.safetensors").read_bytes()
        if whole.noise is not None:
            assert again.noise is not None
            assert again.noise.n_updates == whole.noise.n_updates


@pytest.mark.slow
def test_dropout_draws_what_it_would_have_drawn(tmp_path: Path):
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.one, self.two = nnx.Linear(64, 16, rngs=rngs), nnx.Linear(16, 10, rngs=rngs)
            self.drop = nnx.Dropout(0.3, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.two(self.drop(nnx.relu(self.one(x.reshape(len(x), -1)))))

    whole = bb.fit(Net(nnx.Rngs(0)), "digits", run=tmp_path / "a", **BASE)
    cut_off(tmp_path / "a", numbered(tmp_path / "a")[1])
    again = bb.fit(Net(nnx.Rngs(0)), "digits", resume=tmp_path / "a", **BASE)
    assert same_bits(whole, again)


def test_the_history_goes_on_where_it_was(tmp_path: Path):
    settings = BASE | {"evaluate": "1 epoch", "checkpoint": "45 updates", "watch_noise": True}
    whole = bb.fit("mlp:16", "digits", run=tmp_path / "a", **settings)
    cut_off(tmp_path / "a", numbered(tmp_path / "a")[2])
    again = bb.fit("mlp:16", "digits", resume=tmp_path / "a", **settings)
    assert same_history(whole, again)
    assert any("resumed after" in note for note in again.notes)
    assert again.clock.seconds > 0
    lines = [json.loads(line) for line in (tmp_path / "a" / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines if line["event"] in ("started", "resumed", "finished")] == [
        "started", "resumed", "finished",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_pause_inside_a_repeated_batch_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = BASE | {
        "every": bb.every(2).repeat(until="loss<0.001", at_most=500), "duration": "3000 updates", "checkpoint": "1 s",
        "evaluate": "never",
    }  # fmt: skip
    whole = bb.fit("mlp:16", "digits", **(settings | {"checkpoint": "auto"}))
    monkeypatch.setattr("backbeat.advance._PAUSE", 37)
    monkeypatch.setattr("backbeat.advance.STRETCH_SECONDS", 1e-9)  # a pause after each update
    inside = []

    def keep(event: Any) -> None:
        if isinstance(event, StretchDone):
            inside.append(event.snapshot)

    paused = bb.fit("mlp:16", "digits", on_event=keep, **(settings | {"checkpoint": "auto", "duration": "300 updates"}))
    assert sum(snapshot.inside is not None for snapshot in inside) > 50
    monkeypatch.undo()
    straight = bb.fit("mlp:16", "digits", **(settings | {"checkpoint": "auto", "duration": "300 updates"}))
    assert same_bits(paused, straight)
    assert paused.repeats is not None
    assert straight.repeats is not None
    assert whole.repeats is not None
    for name, column in straight.repeats.items():
        assert np.array_equal(paused.repeats[name], column, equal_nan=True), name


def test_a_run_that_is_cut_off_inside_a_repeated_batch_goes_on_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = BASE | {
        "every": bb.every(2).repeat(until="loss<0.001", at_most=500), "duration": "400 updates", "evaluate": "never",
        "checkpoint": "33 updates",
    }  # fmt: skip
    straight = bb.fit("mlp:16", "digits", **settings)
    monkeypatch.setattr("backbeat.advance._PAUSE", 30)
    monkeypatch.setattr("backbeat.advance.STRETCH_SECONDS", 1e-9)
    bb.fit("mlp:16", "digits", run=tmp_path / "a", **settings)
    monkeypatch.undo()
    points = numbered(tmp_path / "a")
    held = [p for p in points if '"is": "Carry"' in json.dumps(json.loads((p / "values" / "metadata").read_text()))]
    assert held, "no checkpoint was taken inside a batch"
    cut_off(tmp_path / "a", held[len(held) // 2])
    again = bb.fit("mlp:16", "digits", resume=tmp_path / "a", **settings)
    assert same_bits(straight, again)
    assert again.repeats is not None
    assert straight.repeats is not None
    assert np.array_equal(again.repeats["updates"], straight.repeats["updates"])


# What is damaged


def damage_nothing(path: Path) -> None:
    """Leaves all as it is: the newest checkpoint is used."""


def truncate(path: Path) -> None:
    file = max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    file = max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def remove_a_file(path: Path) -> None:
    next(file for file in sorted(path.rglob("*")) if file.is_file() and file.name != SUMS).unlink()


def remove_sums(path: Path) -> None:
    (path / SUMS).unlink()


def empty_sums(path: Path) -> None:
    (path / SUMS).write_text("")


def older_format(path: Path) -> None:
    file = path / "values" / "metadata"
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"format": 0}))
    lines = [
        f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(path).as_posix()}\n"
        for f in sorted(path.rglob("*")) if f.is_file() and f.name != SUMS
    ]  # fmt: skip
    (path / SUMS).write_text("".join(lines))


DAMAGES = {
    truncate: "is not what was written", flip_a_bit: "is not what was written", remove_a_file: "is missing",
    remove_sums: "not complete", empty_sums: "is empty", older_format: "format 0",
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return bb.fit("mlp:16", "digits", run=folder, **BASE), folder


@pytest.fixture
def cut(finished: tuple[Run, Path], tmp_path: Path) -> Path:
    """A copy of a run that was killed after its third checkpoint."""
    folder = tmp_path / "cut"
    shutil.copytree(finished[1], folder)
    cut_off(folder, numbered(folder)[2])
    return folder


@pytest.mark.reliability(row="damaged")
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_is_not_used_and_the_one_before_it_is(damage: Any, cut: Path, finished: Any):
    newest, before = numbered(cut)[2], numbered(cut)[1]
    damage(newest)
    run = bb.fit("mlp:16", "digits", resume=cut, **BASE)
    assert same_bits(finished[0], run)
    said = " ".join(run.notes)
    assert newest.name in said
    assert DAMAGES[damage] in said
    assert f"resumed after {int(before.name.split('-')[1]):,} updates" in said


@pytest.mark.reliability(row="damaged")
def test_where_all_are_damaged_the_run_begins_anew(cut: Path, finished: Any):
    for path in numbered(cut):
        flip_a_bit(path)
    run = bb.fit("mlp:16", "digits", resume=cut, **BASE)
    assert same_bits(finished[0], run)
    assert "begins anew" in " ".join(run.notes)
    assert same_history(finished[0], run)


@pytest.mark.reliability(row="damaged")
def test_a_half_written_event_line_is_left_out(cut: Path, finished: Any):
    with (cut / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "stretch", "upda')
    run = bb.fit("mlp:16", "digits", resume=cut, **BASE)
    assert same_bits(finished[0], run)
    for line in (cut / "events.jsonl").read_text().splitlines():
        json.loads(line)


@pytest.mark.reliability(row="damaged")
def test_a_damaged_event_line_is_said_and_the_weights_do_not_depend_on_it(cut: Path, finished: Any):
    lines = (cut / "events.jsonl").read_bytes().split(b"\n")
    lines[2] = b"x" * len(lines[2])
    (cut / "events.jsonl").write_bytes(b"\n".join(lines))
    run = bb.fit("mlp:16", "digits", resume=cut, **BASE)
    assert same_bits(finished[0], run)
    assert "1 damaged line" in " ".join(run.notes)


# What is refused


@pytest.mark.parametrize(
    ("model", "data", "changed", "words"),
    [
        ("mlp:16", "digits", {"learning_rate": 0.2}, "learning_rate"),
        ("mlp:16", "digits", {"every": 64}, "every='32'|every=32"),
        ("mlp:16", "digits", {"duration": "7 epochs"}, "duration"),
        ("mlp:16", "iris", {}, "other data"),
        ("mlp:17", "digits", {}, "mlp:16"),
        ("mlp:16", "digits", {"optimizer": "adam"}, "optimizer|shapes"),
    ],
)  # fmt: skip
def test_what_differs_is_refused_and_named(model: str, data: str, changed: dict, words: str, cut: Path):
    before = (cut / "events.jsonl").read_bytes()
    with pytest.raises(SettingsError, match=words):
        bb.fit(model, data, resume=cut, **(BASE | changed))
    assert (cut / "events.jsonl").read_bytes() == before


def test_who_wants_to_go_on_all_the_same_can(cut: Path):
    run = bb.fit("mlp:16", "digits", resume=cut, anyway=True, **(BASE | {"duration": "8 epochs"}))
    assert run.clock.epochs == 8
    assert "goes on all the same" in " ".join(run.notes)


def test_another_machine_is_said(cut: Path, monkeypatch: pytest.MonkeyPatch):
    from backbeat import resume
    from backbeat.folder import environment

    monkeypatch.setattr(resume, "environment", lambda: environment() | {"jaxlib": "9.9", "cores": 512})
    run = bb.fit("mlp:16", "digits", resume=cut, **BASE)
    assert "jaxlib 9.9, cores 512" in " ".join(run.notes)


def test_a_run_that_is_over_is_not_gone_on_with(finished: Any):
    with pytest.raises(SettingsError, match="is over"):
        bb.fit("mlp:16", "digits", resume=finished[1], **BASE)


def test_a_second_process_on_one_folder_is_refused(cut: Path):
    job = resolve("mlp:16", "digits", Settings())
    with Recorder(cut, job), pytest.raises(SettingsError, match="in use"):
        bb.fit("mlp:16", "digits", resume=cut, **BASE)


@pytest.mark.parametrize(
    ("given", "words"),
    [({"checkpoint": "often"}, "checkpoint"), ({"keep": 0}, "keep=0"), ({"on_divergence": "halve"}, "halve-lr")],
)
def test_wrong_settings_are_one_sentence(given: dict, words: str, tmp_path: Path):
    with pytest.raises(SettingsError, match=words):
        bb.fit("mlp:16", "digits", run=tmp_path / "a", **given)
    assert not (tmp_path / "a").exists()


def test_the_newest_and_the_best_are_kept(tmp_path: Path):
    settings = BASE | {"keep": 2, "learning_rate": 0.9, "duration": "12 epochs", "evaluate": "1 epoch"}
    run = bb.fit("mlp:16", "digits", run=tmp_path / "a", **settings)
    best = int(run.history["updates"][np.nanargmin(run.history["held_out_loss_mean"])])
    kept = [int(path.name.split("-")[1]) for path in numbered(tmp_path / "a")]
    assert kept[-1] == run.clock.updates
    assert best in kept
    assert len(kept) in (2, 3)


# What stops a run


def test_an_interrupt_is_saved_and_gone_on_with(tmp_path: Path):
    whole = bb.fit("mlp:16", "digits", **BASE)
    for error in (KeyboardInterrupt, Terminated):
        seen: list[Any] = []

        def stop(event: Any, seen: list = seen, error: type[BaseException] = error) -> None:
            seen.append(event)
            if isinstance(event, StretchDone) and event.clock.updates > 120:
                raise error

        folder = tmp_path / error.__name__
        with pytest.raises(error):
            bb.fit("mlp:16", "digits", run=folder, on_event=stop, **(BASE | {"checkpoint": "10 updates"}))
        assert (folder / "model.safetensors").is_file()
        assert list_runs(tmp_path)[0]["state"] in ("interrupted", "terminated")
        again = bb.fit("mlp:16", "digits", resume=folder, **(BASE | {"checkpoint": "10 updates"}))
        assert same_bits(whole, again)


def test_an_interrupt_while_the_run_is_kept_account_of_is_saved_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    take = Account.take

    def interrupted(account: Account, line: dict) -> None:
        if line["event"] == "stretch" and not (tmp_path / "came").exists():
            (tmp_path / "came").touch()
            raise KeyboardInterrupt
        take(account, line)

    monkeypatch.setattr(Account, "take", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bb.fit("mlp:16", "digits", run=tmp_path / "it", **BASE)
    assert (tmp_path / "it/model.safetensors").is_file()
    assert list_runs(tmp_path)[0]["state"] == "interrupted"
    again = bb.fit("mlp:16", "digits", resume=tmp_path / "it", **BASE)
    assert same_bits(bb.fit("mlp:16", "digits", **BASE), again)


def test_a_checkpoint_that_cannot_be_written_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("backbeat.checkpoint.write", full)
    with pytest.raises(StorageError, match="No space left on device"):
        bb.fit("mlp:16", "digits", run=tmp_path / "a", **BASE)
    monkeypatch.undo()
    again = bb.fit("mlp:16", "digits", resume=tmp_path / "a", **BASE)
    assert same_bits(again, bb.fit("mlp:16", "digits", **BASE))


# Divergence


def test_the_update_the_batch_and_the_layer_at_fault_are_named():
    x = np.ones((64, 4), np.float32)
    x[37] = 1e30  # its hidden values squared overflow
    y = np.zeros(64, np.float32)
    job = resolve(
        bb.mlp(hidden=(3,)), (x, y),
        Settings(every=8, order="as given", held_out=0, loss="squared_error", learning_rate=1e-3),
    )  # fmt: skip
    event = list(events_of(job))[-1]
    assert isinstance(event, Diverged)
    assert event.update == 4  # of which the loss after it is not finite
    assert 37 in event.batch
    assert event.batch == tuple(range(32, 40))
    assert event.layer is not None
    assert event.layer.startswith("dense_")
    assert "with the examples 32, 33" in event.reason


def test_halving_the_learning_rate_ends_finite_and_says_each_time():
    notes: list[Noted] = []
    settings: dict[str, Any] = BASE | {"learning_rate": 3.0, "duration": "30 epochs"}
    with pytest.raises(DivergedError, match="first behind dense_"):
        bb.fit("mlp:16", "diabetes", **settings)
    run = bb.fit(
        "mlp:16", "diabetes", on_divergence="halve-lr",
        on_event=lambda event: notes.append(event) if isinstance(event, Noted) else None, **settings,
    )  # fmt: skip
    assert len(notes) >= 3
    assert all("learning rate" in note.note for note in notes)
    assert np.isfinite(run.theta).all()
    assert run.history["held_out_r2"][-1] > 0  # better than the mean of the labels
    assert (np.diff(run.history["updates"]) >= 0).all()
