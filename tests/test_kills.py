"""Training processes that are killed by SIGKILL, again and again: the weights are those of a run that was not."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from backbeat.checkpoint import SUMS

PROGRAM = """
import pathlib, shutil, sys
import backbeat as bb
settings = dict(seed=3, every=1, duration="600 epochs", optimizer="adam", learning_rate=1e-3, checkpoint="0.05 s")
folder = pathlib.Path(sys.argv[1])
if (folder / "settings.toml").is_file() and (folder / "events.jsonl").is_file():
    bb.fit("mlp:64", "digits", resume=folder, **settings)
else:  # killed before there was a run to go on with
    shutil.rmtree(folder, ignore_errors=True)
    bb.fit("mlp:64", "digits", run=folder, **settings)
"""


class Outcome(NamedTuple):
    """What came of a run that was killed: the hash of its weights, kills, and those inside a checkpoint."""

    weights: str
    kills: int
    inside: int


def begun(folder: Path) -> set[Path]:
    """Returns the checkpoints that are being written, or were when the process was killed."""
    return {path for path in (folder / "checkpoints").glob("0*") if not (path / SUMS).is_file()}


def started(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder)], stderr=subprocess.PIPE)


def waited(process: subprocess.Popen[bytes], until: Callable[[], object]) -> None:
    """Waits until something is so, or the process has ended."""
    end = time.monotonic() + 120
    while process.poll() is None and not until():
        assert time.monotonic() < end, "it does not train"
        time.sleep(0.0005)


def killed_until_done(folder: Path, n_kills: int, seed: int) -> Outcome:
    """Kills a run `n_kills` times, in turn at a random moment and while a checkpoint is written; then lets it end."""
    rng, kills, inside = np.random.default_rng(seed), 0, 0
    while True:
        process = started(folder)
        if kills < n_kills:
            before = set((folder / "checkpoints").glob("0*"))
            waited(process, lambda before=before: set((folder / "checkpoints").glob("0*")) - before)  # it trains
            time.sleep(rng.uniform(0, 0.5))
            if kills % 2:
                waited(process, lambda: begun(folder))
                time.sleep(rng.uniform(0, 0.02))
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                kills, inside = kills + 1, inside + bool(begun(folder))
        _, error = process.communicate()
        if (folder / "record.json").is_file():  # what is written last; a kill may come between that and the end
            weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
            return Outcome(weights, kills, inside)
        assert process.returncode == -signal.SIGKILL, error.decode()[-3000:]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns the hash of the weights of a run that nobody kills."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return killed_until_done(folder, 0, seed=0).weights


@pytest.mark.reliability(row="kills")
@pytest.mark.parametrize(
    ("seed", "n_kills"), [(0, 6), *(pytest.param(seed, 11, marks=pytest.mark.slow) for seed in range(1, 6))]
)
def test_a_process_that_is_killed_again_and_again_comes_to_the_same_bits(
    seed: int, n_kills: int, tmp_path: Path, undisturbed: str, record_property: Callable[[str, object], None]
):
    found = killed_until_done(tmp_path / "killed", n_kills, seed)
    record_property("tried", found.kills)
    record_property("inside a checkpoint", found.inside)
    assert found.kills >= n_kills - 1  # one may come after the end
    assert found.inside >= 1
    assert found.weights == undisturbed
