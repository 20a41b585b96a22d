"""Data small enough that compiling, not computing, is what a test of the comparison costs."""

import contextlib
import importlib
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits

import backbeat as bb
from backbeat.compare import Comparison, protocol
from backbeat.compare.trainings import Trainings
from backbeat.config import Job, Settings
from backbeat.data import Reading, load
from backbeat.measure import Spread, Timing


class Arrays(NamedTuple):
    x: np.ndarray
    y: np.ndarray


@pytest.fixture(scope="session")
def digits() -> Arrays:
    """110 digits: with a fifth held out 88 to train on, so that batches of 32 end in one of 24."""
    x, y = (np.asarray(array)[:110] for array in load_digits(return_X_y=True))
    return Arrays((x / 16).astype(np.float32), y.astype(np.int32))


@pytest.fixture(scope="session")
def diabetes() -> Arrays:
    """442 people of scikit-learn's diabetes data, standardised: linear least squares reaches r2 of about 0.5."""
    x, y = (np.asarray(array) for array in load_diabetes(return_X_y=True))
    return Arrays((x / x.std(axis=0)).astype(np.float32), ((y - y.mean()) / y.std()).astype(np.float32))


@pytest.fixture(scope="session")
def comparison(digits: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """One comparison, recorded, that several tests look at.

    The budget is far more than is needed, since tuning and measuring end when the target is reached: so that what they
    find does not depend on how busy the machine is.
    """
    folder = tmp_path_factory.mktemp("comparison") / "run"
    return bb.compare(
        bb.linear(), digits, every=[8, "dataset"], target="accuracy>=0.7", budget="120 s", seed=3, run=folder
    )


@pytest.fixture
def errands(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of work for workers, found by them too: what they import from goes along."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("errands")


@pytest.fixture(scope="session")
def trainings(digits: Arrays) -> Trainings:
    """A linear network on the digits, as workers are sent it."""
    dataset = load(tuple(digits), Reading(), 0)
    return Trainings(bb.linear(), dataset, Settings(every=8, target="accuracy>=0.7", evaluate="1 epoch"))


# of every kind: repeats are timed in the runs themselves, batch sizes change, a batch is short
OF_EVERY_KIND = ["1 repeat until correct at most 3", "8", "32 then 44 after 2 epochs", "dataset"]


@pytest.fixture(scope="session")
def compared_on(digits: Arrays) -> Callable[..., Comparison]:
    """What compares the same cadences anywhere.

    Every update counts as 5 ms. How long runs are is decided by the timing, which no two measurements have alike; and
    so slow are runs by themselves that the vectorised sweep is the faster form however busy the machine is.
    """

    def timings(jobs: Sequence[Job], *_: Any) -> list[Timing]:
        return [Timing((Spread(5e-3, 4e-3, 6e-3),) * len(job.plan.cadence.phases), 0.1) for job in jobs]

    def compared(on: Any, on_progress: Callable[..., None] = lambda at: None) -> Comparison:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(protocol, "time_updates", timings)
            return bb.compare(
                bb.linear(), tuple(digits), every=OF_EVERY_KIND, target="accuracy>=0.7", budget="600 s",
                learning_rates=[0.05, 0.2, 0.8], on=on, on_progress=on_progress,
            )  # fmt: skip

    return compared


def table(found: Comparison) -> list[Any]:
    """Returns all that a comparison found, in order and to the bit; of repeats without their seconds."""
    rows: list[Any] = [found.record["fit"]]
    for cadence in found.cadences:
        rows.append([cadence.every, cadence.tuning.best, cadence.tuning.tried, cadence.tuning.on_edge])
        for run in cadence.runs:
            columns = {name: column.tobytes() for name, column in run.curve.items()}
            if "repeat" in cadence.every:
                columns.pop("seconds")
            reached = run.reached and (run.reached.updates, run.reached.examples, run.reached.epochs)
            rows.append([run.seed, columns, reached, run.diverged_at])
    return rows


@pytest.fixture(scope="session")
def table_of() -> Callable[[Comparison], list[Any]]:
    """What gives a comparison's table."""
    return table


@pytest.fixture(scope="session")
def on_one(compared_on: Callable[..., Comparison]) -> Comparison:
    """The comparison of one process."""
    return compared_on(None)


def family(pid: int) -> set[int]:
    """Returns a process's descendants that run, by Linux's /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(stat.parent.name)] = int(parent)
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


@pytest.fixture
def gone() -> Callable[[Callable[[], Collection[int]]], None]:
    """What waits until no process is found any more."""

    def wait(running: Callable[[], Collection[int]]) -> None:
        for _ in range(200):
            if not running():
                return
            time.sleep(0.05)
        pytest.fail(f"still there after 10 s: {running()}")

    return wait


@pytest.fixture
def processes_of() -> Callable[[int], set[int]]:
    """What finds the processes that a process has started, and those that these have."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("this system has no /proc to look for processes in")
    return family
