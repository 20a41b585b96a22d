"""`backbeat evaluate`: how good a trained network is on labelled data, class by class, with a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..errors import SettingsError
from .options import AsJson, OwnModel, Quiet, Resize, RunFolder, SkipBad

if TYPE_CHECKING:
    from ..assess import Assessment
    from ..saved import SavedRun

_MOST_CLASSES = 26  # of which the confusion matrix is printed


def evaluate(
    run: RunFolder,
    data: Annotated[
        str | None, Parameter(help="Labelled data. Default: the part that the run held out, read again.")
    ] = None,
    *,
    output: Annotated[
        Path | None,
        Parameter(
            name=["--output", "-o"], help="Where to draw, .png or .svg. Default: confusion.png in the run's folder."
        ),
    ] = None,
    resize: Resize = None,
    skip_bad: SkipBad = False,
    model: OwnModel = None,
    json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Scores a run's network: loss, accuracy, precision, recall and F1 of each class, and who is taken for whom."""
    from ..assess import assess
    from ..report import save_figure
    from ..saved import load_run
    from .console import bar, print_json, say

    saved = load_run(run, model).with_reading(resize=resize, skip_bad=skip_bad)
    classes = saved.kind in ("classification", "binary")
    path = output or saved.folder / ("confusion.png" if classes else "predicted.png")
    check_picture(path)
    with bar(quiet or json) as progress:
        progress.show("evaluating", 0.0)
        found = assess(saved, data)
    figure = drawn(saved, found)
    if figure is not None:
        save_figure(figure, path)
    for note in () if quiet else found.notes:
        say(note)
    if json:
        print_json({"run": saved.folder, **as_record(found), "picture": path if figure is not None else None})
    else:
        show(saved, found)
        if figure is not None:
            print(path)
    return 0


def check_picture(path: Path) -> None:
    """Refuses a picture's path whose ending is not known, and one where something else than a picture of ours is.

    Raises:
        SettingsError: such a path.
    """
    if path.suffix.lower() not in (".png", ".svg"):
        raise SettingsError(f"--output {path} must end in .png or .svg.")
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SettingsError(f"{path} cannot be written ({error.strerror}); choose another place.") from None
    if b"matplotlib" not in start.lower():  # which names itself in every picture that it writes
        raise SettingsError(f"{path} is there and is no picture of an evaluation; choose another name with --output.")


def drawn(saved: SavedRun, found: Assessment) -> Any:
    """Returns the picture of an evaluation; None where an example has several labels."""
    from ..report.confusion import confusion_figure, predicted_figure
    from ..report.style import every_name

    context = f"{saved.record['model']}, updated: {every_name(saved.record['every'])}; {of(saved, found)}"
    if found.confusion is not None:
        n = int(found.confusion.sum())
        right = int(found.confusion.trace())
        return confusion_figure(
            found.confusion, found.names, f"{right:,} of {n:,} are right ({right / n:.1%})", context
        )
    if "support" in found.rows[0]:
        return None
    title = f"R² {found.scores['r2']:.3f}: predicted against true values"
    return predicted_figure(found.label, found.prediction, found.names, title, context)


def of(saved: SavedRun, found: Assessment) -> str:
    """Returns what was evaluated, in words."""
    name = saved.record["data"]["name"]
    return f"{f'{found.part} of {name}' if found.part == 'held-out part' else found.part}, {found.n:,} examples"


def as_record(found: Assessment) -> dict[str, Any]:
    """Returns an evaluation as JSON has it."""
    return {
        "part": found.part, "n_examples": found.n, "scores": found.scores,
        "classes" if "support" in found.rows[0] else "outputs": [
            {"name": name, **row} for name, row in zip(found.names, found.rows, strict=True)
        ],
        "confusion": found.confusion,
    }  # fmt: skip


def show(saved: SavedRun, found: Assessment) -> None:
    """Prints an evaluation."""
    from .console import results, tell
    from .table import Table

    names = {"f1_macro": "F1 (mean of the classes)", "r2": "R²"}
    tell(", ".join(f"{names.get(name, name)} {value:.4g}" for name, value in found.scores.items()), "bold")
    tell(f"{saved.record['model']} on {of(saved, found)}")
    columns = list(found.rows[0])
    if len(found.rows) > 1:
        made = Table("class" if "support" in columns else "output", *columns)
        for name, row in zip(found.names, found.rows, strict=True):
            made.add_row(name, *(cell(value, whole=column == "support") for column, value in row.items()))
        results().print(made)
    if found.confusion is not None and len(found.names) <= _MOST_CLASSES:
        made = Table("true \\ predicted", *found.names)
        for name, row in zip(found.names, found.confusion.tolist(), strict=True):
            made.add_row(name, *(f"{count:,}" if count else "·" for count in row))
        results().print(made)


def cell(value: float, *, whole: bool) -> str:
    """Returns a number of the table; a dash where it is not defined, such as the recall of a class without examples.

    Example:
        >>> cell(0.5, whole=False), cell(36.0, whole=True), cell(float("nan"), whole=False)
        ('0.5000', '36', '–')
    """
    if value != value:
        return "–"
    return f"{value:,.0f}" if whole else f"{value:.4f}" if abs(value) < 10 else f"{value:,.4g}"
