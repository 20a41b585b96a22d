"""The folder of a comparison or of advice while it is measured: settings, environment, one line for each finding.

settings.toml        what was asked for; `backbeat compare --settings FOLDER`, or `advise`, repeats it
environment.json     versions, machine, device
events.jsonl         started; what was timed, tuned, measured; finished; each line written when it is known, and how far
                     it is in between
record.json          the whole of it as a report shows it
.lock                held while it is measured, so that others see that it is
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..config import Job, as_columns
from ..folder import create_folder, environment, plain, settings_text, write_json, write_whole
from ..notebook import StagesShown, in_place
from ..record import recorded_columns
from ..recorded import LOCK

_PROGRESS_SECONDS = 1.0  # between two lines that say no more than how far it is
Note = Callable[..., None]  # (event, **what is known now) -> one line written


@dataclass(frozen=True)
class Progress:
    """How far a comparison or advice is.

    Attributes:
        stage: "timing", then "tuning" and "measuring", or "searching" and "confirming"; before, what is done where
            large data is packed.
        every: the cadence being worked on, as text.
        share: of the stage, from 0 to 1.
        overall: of the whole, likewise; of what is packed before, the same as `share`. It never falls.
    """

    stage: str
    every: str
    share: float
    overall: float


class Stages:
    """Says how far the stages of a comparison or of advice are: to the caller, and in the journal once a second.

    Args:
        widths: stage -> its share of the whole, in their order.
        tell: is given each `Progress`; None to show it in a notebook, and nothing elsewhere.
        what: a "comparison" or "advice".

    Example:
        >>> said = []
        >>> Stages({"timing": 0.2, "tuning": 0.8}, said.append).at("tuning", "32", 0.5)
        >>> round(said[0].overall, 3)
        0.6
    """

    def __init__(
        self, widths: Mapping[str, float], tell: Callable[[Progress], None] | None, what: str = "comparison"
    ) -> None:
        show = in_place() if tell is None else None
        self._shown = None if show is None else StagesShown(what, show)
        self._widths, self._tell = widths, tell or self._shown or (lambda progress: None)
        self.note: Note = no_note
        self._last: tuple[str, float] = ("", 0.0)
        self._most = 0.0

    def at(self, stage: str, every: str, share: float) -> None:
        """Says that a share of a stage is done."""
        share = min(max(share, 0.0), 1.0)
        done = 0.0
        for name, width in self._widths.items():
            if name == stage:
                break
            done += width
        overall = share
        if stage in self._widths:
            overall = self._most = max(self._most, done + self._widths[stage] * share)
        self._tell(Progress(stage, every, share, overall))
        now = time.monotonic()
        if stage != self._last[0] or now >= self._last[1] + _PROGRESS_SECONDS:
            self._last = stage, now
            self.note("progress", stage=stage, every=every, share=share, overall=overall)

    def over(self) -> None:
        """Says in a notebook that all is done."""
        if self._shown is not None:
            self._shown.over()


def no_note(event: str, **known: Any) -> None:
    """Takes nothing down: for a comparison that is not recorded."""


@contextmanager
def journal(
    run: str | Path | None, job: Job, settings: Mapping[str, Any], kind: str = "comparison"
) -> Iterator[tuple[Path | None, Note]]:
    """Gives the folder to record in and what writes its events; takes the folder away if nothing came of it.

    Args:
        run: where; must not hold anything yet. None: nothing is recorded.
        job: of the first cadence and seed.
        settings: what was asked for, as text, numbers and booleans.
        kind: what is recorded: a "comparison" or "advice".

    Raises:
        SettingsError: the folder holds something or cannot be written.
    """
    if run is None:
        yield None, no_note
        return
    folder, began = create_folder(Path(run)), time.monotonic()
    lock = FileLock(folder / LOCK)
    lock.acquire()
    try:
        known = {"model": as_columns(job)["model"], "data": job.dataset.source, **settings}
        write_whole(folder / "settings.toml", lambda file: file.write(settings_text(known)))
        write_json(folder / "environment.json", environment())
        with (folder / "events.jsonl").open("x", encoding="utf-8") as file:

            def note(event: str, **known: Any) -> None:
                line = {"event": event, "wall_seconds": time.monotonic() - began, **known}
                file.write(json.dumps(plain(line), ensure_ascii=False) + "\n")
                file.flush()

            started = datetime.now(UTC).isoformat(timespec="seconds")
            note("started", kind=kind, time=started, **recorded_columns(job), settings=settings)
            yield folder, note
    except BaseException:
        lock.release()
        shutil.rmtree(folder)
        raise
    lock.release()
    (folder / LOCK).unlink(missing_ok=True)
