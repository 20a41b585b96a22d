"""Runs and comparisons in TensorBoard and MLflow, as the readers of those tools see them."""

import json
import os
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backbeat as bb
from backbeat.checkpoint import numbered
from backbeat.cli import run as command
from backbeat.errors import DivergedError, MissingExtraError, SettingsError
from backbeat.events import Event, StretchDone
from backbeat.logs import Place, Written, named, places_of

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # MLflow's use of SQLAlchemy
SETTINGS: Any = {"seed": 3, "duration": "6 epochs", "checkpoint": "37 updates", "keep": 100, "watch_noise": True}


@pytest.fixture(scope="module", autouse=True)
def no_telemetry() -> None:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


@pytest.fixture(scope="session")
def empty_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow data base with its tables, which take seconds to make."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    Place.parse(f"mlflow:sqlite:///{file}").opened()
    return file


@pytest.fixture
def base(empty_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(empty_base, tmp_path / "mlflow.db"))


def tensorboard(folder: Path) -> tuple[dict[str, list[tuple[int, float, float]]], list[str]]:
    """Returns (scalars by tag as (step, value, time), sentences) of a run's folder, by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    scalars = {tag: [(e.step, e.value, e.wall_time) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    tensors = found.Tensors("notes/text_summary") if "notes/text_summary" in found.Tags()["tensors"] else []
    return scalars, [tensor.tensor_proto.string_val[0].decode() for tensor in tensors]


def mlflow_runs(base: Path) -> dict[str, Any]:
    """Returns the runs of a data base by name."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{base}")
    experiment = client.get_experiment_by_name("backbeat")
    assert experiment is not None
    return {str(run.info.run_name): run for run in client.search_runs([experiment.experiment_id])}


def metric(base: Path, run: Any, name: str) -> list[tuple[int, float, int]]:
    from mlflow import MlflowClient

    points = MlflowClient(tracking_uri=f"sqlite:///{base}").get_metric_history(run.info.run_id, name)
    return [(point.step, point.value, point.timestamp) for point in points]


COLUMNS = {
    "loss_mean": "loss/batches", "train_loss_mean": "loss/train", "held_out_loss_mean": "loss/held_out",
    "held_out_accuracy": "accuracy/held_out", "learning_rate": "update/learning_rate", "noise_scale": "noise/scale",
    "batch_size": "update/batch_size",
}  # fmt: skip


def expected(run: Any, column: str) -> list[tuple[int, float]]:
    """Returns (updates, value) of a column of the history, where there is a finite one."""
    rows = zip(run.history["updates"], run.history[column], strict=True)
    return [(int(updates), float(value)) for updates, value in rows if np.isfinite(value)]


def test_what_was_measured_is_read_back(base: Path, tmp_path: Path):
    given = [f"tensorboard:{tmp_path / 'tb'}", f"mlflow:sqlite:///{base}"]
    before = time.time()
    run = bb.fit("mlp:16", "digits", run=tmp_path / "letters", log=given, **SETTINGS)
    after = time.time()
    scalars, sentences = tensorboard(tmp_path / "tb/letters")
    (other,) = mlflow_runs(base).values()
    for column, name in COLUMNS.items():
        rows = expected(run, column)
        assert len(rows) > 2
        assert [step for step, _, _ in scalars[name]] == [step for step, _ in rows], name
        assert [np.float32(v) for _, v, _ in scalars[name]] == [np.float32(v) for _, v in rows]
        assert [(step, value) for step, value, _ in metric(base, other, name)] == rows
        assert all(before - 1 <= at <= after for _, _, at in scalars[name])
    assert "ran for 6 epochs" in sentences
    assert other.info.status == "FINISHED"
    assert other.data.params["model"] == "mlp:16"
    assert other.data.params["data"] == "digits"
    assert (other.data.params["seed"], other.data.params["learning_rate"]) == ("3", "0.1")
    assert "ran for 6 epochs" in other.data.tags["mlflow.note.content"]
    assert run.notes == ()


def test_the_clock_of_the_run_is_that_of_the_log(tmp_path: Path):
    run = bb.fit("mlp:16", "digits", run=tmp_path / "it", log=f"tensorboard:{tmp_path}/tb", duration="300 updates")
    (first, *_, last) = tensorboard(tmp_path / "tb/it")[0]["clock/seconds"]
    assert 0 < last[1] <= run.clock.seconds
    assert last[2] - first[2] == pytest.approx(last[1] - first[1], abs=1e-5)  # of seconds since 1970 in float64


def test_a_run_that_is_resumed_has_no_point_twice(base: Path, tmp_path: Path):
    given = [f"tensorboard:{tmp_path / 'tb'}", f"mlflow:sqlite:///{base}"]
    folder = tmp_path / "letters"
    whole = bb.fit("mlp:16", "digits", run=folder, log=given, **SETTINGS)
    for path in numbered(folder)[3:]:  # what SIGKILL would have left; the logs are further
        shutil.rmtree(path)
    for name in ("record.json", "model.safetensors"):
        (folder / name).unlink()
    again = bb.fit("mlp:16", "digits", resume=folder, **SETTINGS)  # it goes on where it was logged
    np.testing.assert_array_equal(again.theta, whole.theta)
    assert [path.name for path in (tmp_path / "tb").iterdir()] == ["letters"]
    scalars, sentences = tensorboard(tmp_path / "tb/letters")
    (other,) = mlflow_runs(base).values()
    for column, name in COLUMNS.items():
        rows = expected(again, column)
        assert [step for step, _, _ in scalars[name]] == [step for step, _ in rows], name
        assert [np.float32(v) for _, v, _ in scalars[name]] == [np.float32(v) for _, v in rows]
        steps = [step for step, _, _ in metric(base, other, name)]
        assert steps == sorted(set(steps))
        assert steps[-1] == rows[-1][0]
    assert any(sentence.startswith("resumed after ") for sentence in sentences)
    assert other.info.status == "FINISHED"


def test_updates_that_are_made_again_after_a_divergence_count_once(base: Path, tmp_path: Path):
    settings = {"loss": "squared_error", "learning_rate": 3.0, "on_divergence": "halve-lr", "duration": "20 epochs"}
    given = [f"tensorboard:{tmp_path / 'tb'}", f"mlflow:sqlite:///{base}"]
    run = bb.fit("mlp:16", "digits", run=tmp_path / "it", seed=3, log=given, **settings)
    assert any("goes on from" in note for note in run.notes)
    scalars, _ = tensorboard(tmp_path / "tb/it")
    assert [step for step, _, _ in scalars["loss/batches"]] == [step for step, _ in expected(run, "loss_mean")]
    (other,) = mlflow_runs(base).values()
    steps = [step for step, _, _ in metric(base, other, "loss/batches")]
    assert steps == sorted(set(steps))


def test_how_a_run_ended_is_known_there(base: Path, tmp_path: Path):
    def interrupt(event: Event) -> None:
        if isinstance(event, StretchDone) and event.clock.updates >= 100:
            raise KeyboardInterrupt

    log = f"mlflow:sqlite:///{base}"
    with pytest.raises(KeyboardInterrupt):
        bb.fit("mlp:16", "digits", run=tmp_path / "interrupted", log=log, on_event=interrupt, **SETTINGS)
    assert mlflow_runs(base)["interrupted"].info.status == "KILLED"
    bb.fit("mlp:16", "digits", resume=tmp_path / "interrupted", log=log, **SETTINGS)
    assert mlflow_runs(base)["interrupted"].info.status == "FINISHED"
    with pytest.raises(DivergedError):
        bb.fit("mlp:16", "digits", run=tmp_path / "it", loss="squared_error", learning_rate=30.0, log=log)
    assert mlflow_runs(base)["it"].info.status == "FAILED"


def test_two_runs_of_one_name_do_not_mix(tmp_path: Path):
    for place in ("a", "b"):
        bb.fit("linear", "iris", run=tmp_path / place / "it", log=f"tensorboard:{tmp_path}/tb", duration="2 epochs")
    assert sorted(path.name for path in (tmp_path / "tb").iterdir()) == ["it", "it-2"]
    assert json.loads((tmp_path / "b/it/logs.json").read_text()) == {f"tensorboard:{tmp_path}/tb": "it-2"}


def test_a_run_without_a_folder_is_logged(tmp_path: Path):
    run = bb.fit("linear", "iris", log=f"tensorboard:{tmp_path}/tb", duration="2 epochs")
    (folder,) = (tmp_path / "tb").iterdir()
    assert tensorboard(folder)[0]["loss/train"][-1][0] == run.clock.updates


def test_a_log_that_fails_is_given_up_and_the_run_lacks_nothing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from backbeat.logs import to_tensorboard

    calls = iter(range(1000))

    def full(self: Any, *_: Any, **__: Any) -> None:
        if next(calls) > 6:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(to_tensorboard._Run, "_write", full)
    given = [f"tensorboard:{tmp_path / 'tb'}", f"mlflow:sqlite:///{base}"]
    run = bb.fit("mlp:16", "digits", run=tmp_path / "it", log=given, **SETTINGS)
    (note,) = run.notes
    assert note.startswith(f"tensorboard:{tmp_path / 'tb'} was given up: OSError")
    assert "No space left on device; the run itself lacks nothing" in note
    np.testing.assert_array_equal(run.theta, bb.fit("mlp:16", "digits", **SETTINGS).theta)
    assert mlflow_runs(base)["it"].info.status == "FINISHED"


def test_a_log_that_takes_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("backbeat.logs.run_log._END_SECONDS", 0.1)
    notes: list[str] = []
    written = Written(Place("mlflow", "http://localhost:1"), notes.append)
    written.close(lambda: time.sleep(5))
    assert notes == [
        "mlflow:http://localhost:1 was given up: it did not take all within 0.1 s; the run itself lacks nothing"
    ]


def test_a_log_that_is_gone_when_the_run_is_resumed_is_said(tmp_path: Path):
    def interrupt(event: Event) -> None:
        if isinstance(event, StretchDone):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bb.fit(
            "mlp:16", "digits", run=tmp_path / "it", log=f"tensorboard:{tmp_path}/tb", on_event=interrupt, **SETTINGS
        )
    shutil.rmtree(tmp_path / "tb")
    (tmp_path / "tb").write_text("a file")
    run = bb.fit("mlp:16", "digits", resume=tmp_path / "it", **SETTINGS)
    assert run.reason == "ran for 6 epochs"
    assert any(note.startswith(f"the run is no longer logged to tensorboard:{tmp_path}/tb: ") for note in run.notes)


@pytest.mark.slow
def test_the_runs_of_a_comparison_are_read_back(base: Path, tmp_path: Path):
    given = [f"tensorboard:{tmp_path / 'tb'}", f"mlflow:sqlite:///{base}"]
    found = bb.compare(
        "linear", "iris", every=[8, "dataset"], learning_rates=[0.1, 1], budget="5 s", run=tmp_path / "which", log=given
    )
    runs = mlflow_runs(base)
    assert len(runs) == 1 + 2 * 3
    whole = runs["which"]
    assert whole.info.status == "FINISHED"
    assert found.answer[0] in whole.data.tags["mlflow.note.content"]
    assert found.answer[0] in tensorboard(tmp_path / "tb/which")[1]
    for cadence in found.cadences:
        for run in cadence.runs:
            name = f"every-{cadence.every}/seed-{run.seed}"
            one, scalars = runs[name], tensorboard(tmp_path / "tb/which" / name)[0]
            assert one.data.tags["mlflow.parentRunId"] == whole.info.run_id
            assert one.data.params["every"] == cadence.every
            assert float(one.data.params["learning_rate"]) == pytest.approx(cadence.tuning.best.learning_rate)
            steps = [int(updates) for updates in run.curve["updates"]]
            for column, tag in (("train_loss_mean", "loss/train"), ("held_out_accuracy", "accuracy/held_out")):
                assert [(step, value) for step, value, _ in metric(base, one, tag)] == list(
                    zip(steps, map(float, run.curve[column]), strict=True)
                )
                assert [step for step, _, _ in scalars[tag]] == steps
            if run.reached is not None:
                assert metric(base, one, "to_target/seconds")[0][:2] == (run.reached.updates, run.reached.seconds)


def test_a_comparison_that_is_interrupted_has_failed_there(base: Path, tmp_path: Path):
    def interrupt(at: Any) -> None:
        if at.stage == "tuning":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bb.compare("linear", "iris", every=[8], budget="5 s", log=f"mlflow:sqlite:///{base}", on_progress=interrupt)
    (whole,) = mlflow_runs(base).values()
    assert whole.info.status == "FAILED"


def test_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    train = ["train", "iris", "--model", "linear", "--for", "3 epochs", "--run", "it", "--quiet"]
    assert command([*train, "--log", "tensorboard:one", "--log", "tensorboard:two"]) == 0
    for place in ("one", "two"):
        assert tensorboard(tmp_path / place / "it")[0]["loss/train"][-1][0] > 0
    compare = ["compare", "iris", "--model", "linear", "--every", "8", "--lr", "0.1,1", "--budget", "5 s", "--quiet"]
    assert command([*compare, "--target", "accuracy>=0.5", "--run", "which", "--log", "tensorboard:one"]) == 0, (
        capsys.readouterr().err
    )
    assert (tmp_path / "one/which/every-8").is_dir()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("tensorboard", "is not understood; write tensorboard:DIR"),
        ("tensorboard:", "is not understood"),
        ("wandb:mine", "is not understood"),
        ("tensorboard:s3://bucket/runs", "a folder of this machine"),
        ("tensorboard:taken", "cannot be written"),
        ("mlflow:mlruns", "a data base or on a server, not in a folder"),
        ("mlflow:sqlite:///", "names no file"),
        ("mlflow:sqlite:///:memory:", "names no file"),
        ("mlflow:sqlite:///taken", "cannot be written (file is not a database)"),
        ("mlflow:sqlite:///taken/mlflow.db", "cannot be written"),
        ("mlflow:ftp://example.org", "is no address for MLflow"),
        ("mlflow:http://127.0.0.1:1", "cannot be reached (Connection refused)"),
        ("mlflow:http://127.0.0.1:99999", "is no address of a server"),
        ("mlflow:http://", "is no address of a server"),
    ],
)
def test_what_cannot_be_logged_to_is_refused_before_anything_is_trained(
    given: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("this is a file, and no data base of any kind" * 100)
    assert command(["train", "iris", "--log", given, "--quiet"]) == 2
    assert command(["compare", "iris", "--model", "linear", "--log", given, "--quiet"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert said in first
    assert first == second
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_a_data_base_that_somebody_else_writes_is_refused_in_a_sentence(base: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("backbeat.logs.to_mlflow._REACH_SECONDS", 0.1)
    other = sqlite3.connect(base)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SettingsError, match="database is locked"):
        bb.fit("linear", "iris", log=f"mlflow:sqlite:///{base}")
    other.close()


@pytest.mark.parametrize(("given", "module"), [("tensorboard:tb", "tensorboardX"), ("mlflow:sqlite:///x.db", "mlflow")])
def test_a_library_that_is_not_there_is_named(given: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtraError, match=r"run: pip install 'backbeat\[(tensorboard|mlflow)\]'"):
        bb.fit("linear", "iris", log=given)


def test_places_are_read_once_each_and_passwords_are_not_shown():
    assert len(places_of(["tensorboard:a", "tensorboard:./a", "tensorboard:b"])) == 2
    assert places_of(None) == []
    with pytest.raises(SettingsError, match="is no text"):
        places_of(5)
    place = Place.parse("mlflow:https://me:secret@127.0.0.1:1/x")
    assert "secret" not in str(place)
    with pytest.raises(SettingsError) as error:
        place.opened()
    assert "secret" not in str(error.value)


def test_names_are_those_of_the_docs(tmp_path: Path):
    text = (Path(__file__).parents[1] / "docs/logging.md").read_text()
    run = bb.fit("mlp:16", "digits", duration="2 epochs", watch_gradient=True, watch_noise=True)
    rows = [dict(zip(run.history, row, strict=True)) for row in zip(*run.history.values(), strict=True)]
    for name in {name for row in rows for name in named({k: float(v) for k, v in row.items()})}:
        assert f"`{name}`" in text
