"""A disk that is full or read-only: the run says so at once, keeps what was, and goes on later to the same bits."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import backbeat as bb
from backbeat.checkpoint import numbered
from backbeat.errors import BackbeatError, StorageError
from backbeat.events import Evaluated, Event, Finished, Started, StretchDone

SETTINGS: dict[str, Any] = {
    "seed": 3, "duration": "20 epochs", "evaluate": "1 epoch", "checkpoint": "100 updates", "optimizer": "adam",
    "learning_rate": 0.01, "watch_gradient": True,
}  # fmt: skip
MODEL = "mlp:64"


class Disk:
    """A small disk of its own."""

    def __init__(self, path: Path) -> None:
        self.path, self._filler = path, path / "filler"

    def fill(self, left: int = 0) -> None:
        """Takes all room but some bytes."""
        file = os.open(self._filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        size = 0
        try:
            while True:
                size += os.write(file, bytes(4096))
        except OSError:
            os.truncate(self._filler, max(0, size - left))
        finally:
            os.close(file)

    def clear(self) -> None:
        """Gives the room back."""
        self._filler.unlink()

    def read_only(self, on: bool) -> None:
        """Makes it read-only, or no longer."""
        subprocess.run(["mount", "-o", f"remount,{'ro' if on else 'rw'}", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(path)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture(scope="module")
def whole() -> bytes:
    """Returns the final weights of a run that nothing disturbs."""
    return bb.fit(MODEL, "digits", **SETTINGS).theta.tobytes()


def filled(disk: Disk, when: Callable[[Event], bool], left: int = 0) -> Callable[[Event], None]:
    """Returns a consumer of events that fills the disk at the first event that is such a one."""
    done: list[Event] = []

    def consume(event: Event) -> None:
        if not done and when(event):
            done.append(event)
            disk.fill(left)

    return consume


def late(event: Event) -> bool:
    return isinstance(event, (StretchDone, Evaluated)) and event.clock.updates > 300


MOMENTS: dict[str, tuple[Callable[[Event], bool], int]] = {
    "events": (late, 0),
    "a checkpoint": (late, 16 * 4096),
    "the start": (lambda event: isinstance(event, Started), 0),
    "the end": (lambda event: isinstance(event, Finished), 0),
}


# a disk that gets full in the middle of a write: Orbax's threads fail after it gave up, which the command line hides
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.reliability(row="storage")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_disk_that_is_full_stops_the_run_and_it_goes_on_later(moment: str, disk: Disk, whole: bytes):
    run = disk.path / "run"
    with pytest.raises(StorageError, match=r"cannot be written \(No space left on device\), so training has stopped"):
        bb.fit(MODEL, "digits", run=run, on_event=filled(disk, *MOMENTS[moment]), **SETTINGS)
    kept = [path.name for path in numbered(run)]
    assert bool(kept) == (moment != "the start")
    disk.clear()
    again = bb.fit(MODEL, "digits", resume=run, **SETTINGS)
    assert again.theta.tobytes() == whole
    if kept:
        assert any("resumed after" in note for note in again.notes)
    assert not any("damaged" in note for note in again.notes)
    assert (run / "model.safetensors").is_file()


@pytest.mark.reliability(row="storage")
def test_a_disk_that_is_full_from_the_start_leaves_nothing(disk: Disk):
    disk.fill()
    with pytest.raises(BackbeatError, match="cannot be written"):
        bb.fit(MODEL, "digits", run=disk.path / "run", **SETTINGS)
    assert not (disk.path / "run").exists()
    disk.clear()
    shorter: dict[str, Any] = SETTINGS | {"duration": "1 epoch"}
    bb.fit(MODEL, "digits", run=disk.path / "run", **shorter)


@pytest.mark.reliability(row="storage")
def test_a_read_only_folder_is_one_sentence_and_the_run_goes_on_later(disk: Disk, whole: bytes):
    run = disk.path / "run"
    bb.fit(MODEL, "digits", run=run, **SETTINGS)
    for path in numbered(run)[1:]:
        shutil.rmtree(path)
    (run / "record.json").unlink()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    disk.read_only(True)
    with pytest.raises(StorageError, match=r"cannot be written \(Read-only file system\)"):
        bb.fit(MODEL, "digits", resume=run, **SETTINGS)
    with pytest.raises(BackbeatError, match=r"cannot be made \(Read-only file system\); choose another folder"):
        bb.fit(MODEL, "digits", run=disk.path / "other", **SETTINGS)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    disk.read_only(False)
    assert bb.fit(MODEL, "digits", resume=run, **SETTINGS).theta.tobytes() == whole


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write where the owner may not; the test above is for root")
def test_a_folder_without_permission_is_one_sentence(tmp_path: Path):
    run = tmp_path / "run"
    bb.fit(MODEL, "digits", run=run, **SETTINGS)
    (run / "record.json").unlink()
    for path, mode in ((run / "events.jsonl", 0o400), (run / "checkpoints", 0o500), (run, 0o500)):
        path.chmod(mode)
    try:
        with pytest.raises(StorageError, match="cannot be written"):
            bb.fit(MODEL, "digits", resume=run, **SETTINGS)
    finally:
        for path in (run, run / "checkpoints"):
            path.chmod(0o700)
