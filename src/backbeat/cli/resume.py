"""`backbeat resume`: going on with a run that was cut off."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .options import (
    AsJson,
    Checkpoint,
    Coordinator,
    Devices,
    Keep,
    Log,
    OwnModel,
    ProcessCount,
    Processes,
    ProcessIndex,
    Quiet,
    RunFolder,
)
from .watch import Control, Open, Port, Watch, shown_beside


def resume(
    run: RunFolder,
    *,
    model: OwnModel = None,
    data: Annotated[str | None, Parameter(help="Where the data is now, if it has moved.")] = None,
    anyway: Annotated[
        bool, Parameter(negative="", help="Go on although data, model or settings are not those it was trained with.")
    ] = False,
    devices: Devices = None,
    processes: Processes = None,  # this one and the next three are read before the call: processes.with_others
    coordinator: Coordinator = None,
    process_count: ProcessCount = None,
    process_index: ProcessIndex = None,
    checkpoint: Checkpoint = "auto",
    keep: Keep = 3,
    log: Log = None,
    watch: Watch = False,
    port: Port = None,
    open_page: Open = True,
    control: Control = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Goes on with a run that was killed, interrupted or stopped by a full disk, to the bits it would have come to.

    It goes on from the newest checkpoint that is whole; where there is none, from the beginning. On more or fewer
    devices and processes than before the run goes on as well; with --deterministic then, to the same bits too.
    """
    from ..record import found_folder
    from ..resume import check_resumable, recorded_job
    from ..run import go_on
    from .console import bar
    from .train import finished, watcher

    folder = found_folder(run)
    check_resumable(folder, anyway=anyway)
    with shown_beside(folder, watch, port, open_page, control) as stay:
        job = recorded_job(folder, model, data, devices)
        with bar(quiet or json) as progress:
            consumers = [watcher(job, progress.show)]
            done = go_on(job, folder, consumers, checkpoint=checkpoint, keep=keep, anyway=anyway, log=log)
        return stay(finished(done, json=json))
