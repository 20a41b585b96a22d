"""MLflow runs: parameters, metrics by update, sentences as the description; a comparison's runs lie below it.

Nothing is reported to MLflow's makers: its telemetry is switched off before it is loaded.
"""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ..errors import MissingExtraError, SettingsError
from .log import FAILED, FINISHED, KILLED, LoggedRun, Named, Sentences

_STATES = {FINISHED: "FINISHED", FAILED: "FAILED", KILLED: "KILLED"}
_EXPERIMENT = "backbeat"
_SCHEMES = ("postgresql", "mysql", "mssql", "databricks")  # beside sqlite, http and https
_REACH_SECONDS = 10.0
_LONGEST_VALUE, _LONGEST_TAG, _AT_ONCE = 500, 4000, 1000  # characters that every store takes; metrics of a request


class MLflow:
    """A tracking server, or a data base.

    Args:
        address: as MLflow has it, for example sqlite:///mlflow.db.
        asked: as it was asked for, for messages.

    Raises:
        MissingExtraError: MLflow is not installed.
        SettingsError: it cannot be reached or written.
    """

    def __init__(self, address: str, asked: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        _check_reachable(address, asked)
        try:
            from mlflow import MlflowClient
        except ImportError:
            raise MissingExtraError(
                f"log={asked} needs mlflow, which is not installed; run: pip install 'backbeat[mlflow]'."
            ) from None
        for name in ("mlflow.store.db.utils", "alembic"):  # they tell of every table that they make
            logging.getLogger(name).setLevel(logging.WARNING)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        try:
            self._client = MlflowClient(tracking_uri=address)
            found = self._client.get_experiment_by_name(name)
            self._experiment = self._client.create_experiment(name) if found is None else found.experiment_id
        except Exception as error:  # of MLflow, of a data base, of a driver that is not there
            why = str(error).strip().partition("\n")[0][:200].rstrip(".")
            raise SettingsError(f"log={asked} cannot be used ({why}); give another address.") from None

    def begin(self, run: Named) -> LoggedRun:
        """Returns a new run, or the one that goes on."""
        return _Run(self._client, self._experiment, run)


class _Run:
    def __init__(self, client: Any, experiment: str, run: Named) -> None:
        self._client, self._began = client, run.began
        self._newest: dict[str, int] = {}  # the last step of each metric: none is written twice
        self._sentences = Sentences(_LONGEST_TAG)
        if run.kept is None:
            tags = {} if run.parent is None else {"mlflow.parentRunId": run.parent}
            start = round(1000 * run.began)
            self.kept = client.create_run(experiment, start, tags, run.name).info.run_id
            from mlflow.entities import Param

            known = [Param(name, _short(value)) for name, value in run.known.items() if value is not None]
            client.log_batch(self.kept, params=known)
            return
        self.kept = run.kept
        client.update_run(self.kept, "RUNNING")
        for name in client.get_run(self.kept).data.metrics:
            self._newest[name] = max(point.step for point in client.get_metric_history(self.kept, name))

    def numbers(self, updates: int, seconds: float, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        time = round(1000 * (self._began + seconds))
        new = {name: value for name, value in values.items() if updates > self._newest.get(name, -1)}
        self._newest |= dict.fromkeys(new, updates)
        points = [Metric(name, value, time, updates) for name, value in new.items()]
        for start in range(0, len(points), _AT_ONCE):
            self._client.log_batch(self.kept, points[start : start + _AT_ONCE])

    def say(self, updates: int, seconds: float, sentence: str) -> None:
        self._client.set_tag(self.kept, "mlflow.note.content", self._sentences.with_one(f"- {sentence}"))

    def back_to(self, updates: int) -> None:
        """Does nothing: MLflow takes no metric back, so those of updates that are made again are left out."""

    def end(self, state: str) -> None:
        self._client.set_terminated(self.kept, _STATES[state])


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _check_reachable(address: str, asked: str) -> None:
    """Refuses at once what cannot be reached or written: MLflow itself would try for minutes."""
    parts = urlsplit(address)
    if parts.scheme in ("http", "https"):
        _check_server(parts, asked)
    elif parts.scheme == "sqlite":
        _check_file(Path(parts.path.removeprefix("/")), asked)
    elif parts.scheme.partition("+")[0] not in _SCHEMES:
        raise SettingsError(
            f"log={asked} is no address for MLflow; write sqlite:///mlflow.db or http://localhost:5000."
        )


def _check_server(parts: SplitResult, asked: str) -> None:
    port = None
    with suppress(ValueError):
        port = parts.port or (443 if parts.scheme == "https" else 80)
    if not parts.hostname or port is None:
        raise SettingsError(f"log={asked} is no address of a server; write mlflow:http://localhost:5000.")
    try:
        socket.create_connection((parts.hostname, port), _REACH_SECONDS).close()
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise SettingsError(f"log={asked} cannot be reached ({why}); start the server, or leave it out.") from None


def _check_file(file: Path, asked: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file, timeout=_REACH_SECONDS)) as base:
            base.execute("BEGIN IMMEDIATE")  # as a writer does
            base.rollback()
    except (OSError, sqlite3.Error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise SettingsError(f"log={asked} cannot be written ({why}); give another file.") from None
