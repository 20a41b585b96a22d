"""TensorBoard's event files, one folder a run: scalars, sentences, and settings for its HPARAMS page.

Events are written here as they come, so that an error is known at once; tensorboardX has the format.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import MissingExtraError, SettingsError
from .log import FINISHED, LoggedRun, Named

_SCORES = ("loss/held_out", "accuracy/held_out", "r2/held_out", "loss/train")


class TensorBoard:
    """A folder that `tensorboard --logdir` shows.

    Args:
        folder: of it; made where it is not there.
        asked: as it was asked for, for messages.

    Raises:
        MissingExtraError: tensorboardX is not installed.
        SettingsError: the folder cannot be written.
    """

    def __init__(self, folder: Path, asked: str) -> None:
        try:
            import tensorboardX  # noqa: F401
        except ImportError:
            raise MissingExtraError(
                f"log={asked} needs tensorboardX, which is not installed; run: pip install 'backbeat[tensorboard]'."
            ) from None
        self._folder = folder
        probe = folder / f".{secrets.token_hex(4)}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise SettingsError(f"log={asked} cannot be written ({error.strerror}); give another folder.") from None

    def begin(self, run: Named) -> LoggedRun:
        """Returns a run in a folder of its own; the name of one that is there already gets a number."""
        name = run.name if run.parent is None else f"{run.parent}/{run.name}"
        free, n = run.kept or name, 1
        while run.kept is None and (self._folder / free).exists():
            n += 1
            free = f"{name}-{n}"
        return _Run(self._folder / free, free, run)


class _Run:
    def __init__(self, folder: Path, kept: str, run: Named) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.summary import hparams

        folder.mkdir(parents=True, exist_ok=True)
        self.kept, self._began = kept, run.began
        self._newest: dict[str, int] = {}  # the last step of each tag: none is written twice
        self._writer = EventsWriter(str(folder / "events"), f".{secrets.token_hex(4)}")  # two may begin in one second
        if run.kept is not None:
            self.back_to(run.at)
        known = {k: v if isinstance(v, (bool, int, float)) else str(v) for k, v in run.known.items() if v is not None}
        for summary in hparams(known, dict.fromkeys(_SCORES))[:2]:
            self._write(0, 0.0, summary=summary)

    def numbers(self, updates: int, seconds: float, values: Mapping[str, float]) -> None:
        summary = _proto("summary")
        new = {tag: value for tag, value in values.items() if updates > self._newest.get(tag, -1)}
        self._newest |= dict.fromkeys(new, updates)
        each = [summary.Summary.Value(tag=tag, simple_value=value) for tag, value in new.items()]
        self._write(updates, seconds, summary=summary.Summary(value=each))

    def say(self, updates: int, seconds: float, sentence: str) -> None:
        from tensorboardX.summary import text

        self._write(updates, seconds, summary=text("notes", sentence))

    def back_to(self, updates: int) -> None:
        self._newest = {tag: min(newest, updates) for tag, newest in self._newest.items()}
        log = _proto("event").SessionLog
        self._write(updates + 1, 0.0, session_log=log(status=log.START))

    def end(self, state: str) -> None:
        summary, hparams = _proto("summary"), _proto("plugin_hparams")
        status = _proto("api").Status.Value("STATUS_SUCCESS" if state == FINISHED else "STATUS_FAILURE")
        data = hparams.HParamsPluginData(session_end_info=hparams.SessionEndInfo(status=status)).SerializeToString()
        plugin = summary.SummaryMetadata.PluginData(plugin_name="hparams", content=data)
        about = summary.SummaryMetadata(plugin_data=plugin)
        value = summary.Summary.Value(tag="_hparams_/session_end_info", metadata=about)
        try:
            self._write(0, 0.0, summary=summary.Summary(value=[value]))
        finally:
            self._writer.close()

    def _write(self, updates: int, seconds: float, **what: Any) -> None:
        event = _proto("event").Event(wall_time=self._began + seconds, step=updates, **what)
        self._writer.write_event(event)
        self._writer.flush()


def _proto(name: str) -> Any:
    """Returns the module of TensorBoard's messages of one kind."""
    return import_module(f"tensorboardX.proto.{name}_pb2")
