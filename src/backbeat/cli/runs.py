"""`backbeat runs`: what has been trained, compared and advised."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .options import AsJson


def runs(
    folder: Annotated[Path, Parameter(help="Where the runs are.")] = Path("runs"),
    *,
    json: AsJson = False,
) -> int:
    """Lists runs, comparisons and advice, the newest first."""
    from ..recorded import list_runs
    from ..report.style import duration
    from .console import print_json, results
    from .table import Table, unbroken

    rows = list_runs(folder)
    if json:
        print_json({"folder": folder, "runs": rows})
        return 0
    made = Table("name", "kind", "state", "data", "update after", "updates", "time", n_texts=5)
    for row in rows:
        updates = f"{row['updates']:,}" if "updates" in row else ""
        seconds = unbroken(duration(row["seconds"])) if row.get("seconds") is not None else ""
        made.add_row(
            row["name"], row["kind"], row["state"], row.get("data", ""), row.get("every", ""), updates, seconds
        )
    results().print(made if rows else f"no runs in {folder}")
    return 0
