"""`backbeat report`: the page of a run, a comparison or advice, one self-contained HTML file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def report(
    run: Annotated[Path, Parameter(help="The folder of a run, comparison or advice, or its name under runs/.")],
    *,
    output: Annotated[
        Path | None,
        Parameter(
            name=["--output", "-o"],
            help="Where to write: a name ending in .html, .png or .svg. Default: report.html in the run's folder.",
        ),
    ] = None,
    open_page: Annotated[
        bool, Parameter(name="--open", negative="--no-open", help="Open the page in the browser.")
    ] = True,
) -> int:
    """Writes the report of a run, a comparison or advice from its records, and opens it."""
    from ..errors import SettingsError
    from ..recorded import found_folder, read_record, with_mistakes
    from ..report import advice_figure, comparison_figure, run_figure, save_figure, write_page

    folder = found_folder(run)
    record = read_record(folder)
    path = output or (folder if folder.is_dir() else folder.parent) / "report.html"
    if path.suffix in (".png", ".svg"):
        draw = {"comparison": comparison_figure, "advice": advice_figure, "run": run_figure}[record["kind"]]
        save_figure(draw(record), path)
    elif path.suffix in (".html", ".htm"):
        write_page(with_mistakes(record, folder), path)
    else:
        raise SettingsError(f"--output {path} must end in .html, .png or .svg.")
    print(path)
    if open_page and output is None and sys.stdout.isatty():
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
    return 0
