"""The folder of a comparison or of advice while it is measured: settings, environment, one line for each finding.

settings.toml        what was asked for; `backbeat compare --settings FOLDER`, or `advise`, repeats it
environment.json     versions, machine, device
events.jsonl         started; what was timed, tuned, measured; finished; each line written when it is known
record.json          the whole of it as a report shows it
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..config import Job, as_columns
from ..folder import create_folder, environment, plain, settings_text, write_json, write_whole
from ..record import recorded_columns

Note = Callable[..., None]  # (event, **what is known now) -> one line written


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
    folder = create_folder(Path(run))
    try:
        known = {"model": as_columns(job)["model"], "data": job.dataset.source, **settings}
        write_whole(folder / "settings.toml", lambda file: file.write(settings_text(known)))
        write_json(folder / "environment.json", environment())
        with (folder / "events.jsonl").open("x", encoding="utf-8") as file:

            def note(event: str, **known: Any) -> None:
                file.write(json.dumps(plain({"event": event, **known}), ensure_ascii=False) + "\n")
                file.flush()

            started = datetime.now(UTC).isoformat(timespec="seconds")
            note("started", kind=kind, time=started, **recorded_columns(job), settings=settings)
            yield folder, note
    except BaseException:
        shutil.rmtree(folder)
        raise
