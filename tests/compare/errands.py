"""Work for workers in tests, in a module of its own so that other processes find it (see `errands` in conftest)."""

import os
import signal
import time
from pathlib import Path

from backbeat.errors import DivergedError


def twice(trainings, *, x, seconds, crowd, progress):
    progress(0.5)
    return 2 * x


def allowed(trainings, *, seconds, crowd, progress):
    return seconds, crowd


def seen(trainings, *, seconds, crowd, progress):
    return os.getpid(), trainings.dataset.x.sum(), trainings.job(1).settings.seed


def lost_at_first(trainings, *, x, marker, seconds, crowd, progress):
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * x


def always_lost(trainings, *, seconds, crowd, progress):
    os.kill(os.getpid(), signal.SIGKILL)


class Strange:
    """Cannot be made anew where it is unpacked."""

    def __reduce__(self):
        return needs_more, ()


def needs_more(more):
    return more


def takes_strange(trainings, *, strange, seconds, crowd, progress):
    return strange


def diverges(trainings, *, seconds, crowd, progress):
    raise DivergedError("the optimizer's own learning rate diverges at update 7.")


def mistaken(trainings, *, seconds, crowd, progress):
    raise KeyError("seven")


def waits(trainings, *, seconds, crowd, progress):
    time.sleep(600)
