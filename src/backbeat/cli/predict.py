"""`backbeat predict`: what a trained network says of new data, as a table, as CSV or in a file."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..errors import SettingsError
from .options import AsJson, OwnModel, Quiet, Resize, RunFolder, SkipBad

if TYPE_CHECKING:
    import numpy as np

    from ..saved import SavedRun

_KINDS = (".csv", ".parquet", ".json", ".jsonl", ".npy")
_SHOWN = 24  # rows on a terminal


def predict(
    run: RunFolder,
    data: Annotated[
        str,
        Parameter(help="What to predict: a CSV, Parquet, .npz or .npy file, a folder of images, one image, digits."),
    ],
    *,
    proba: Annotated[bool, Parameter(negative="", help="The probability of every class.")] = False,
    output: Annotated[
        Path | None, Parameter(name=["--output", "-o"], help="Write to a .csv, .parquet, .json, .jsonl or .npy file.")
    ] = None,
    resize: Resize = None,
    skip_bad: SkipBad = False,
    model: OwnModel = None,
    json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Predicts new data, prepared as the run's own was: a table on a terminal, CSV in a pipe.

    Labels in DATA are not needed and not used; `evaluate` compares with them.
    """
    from ..saved import load_run
    from .console import bar, print_json, say

    saved = load_run(run, model).with_reading(resize=resize, skip_bad=skip_bad)
    check_output(output, data, saved)
    if proba and saved.kind not in ("classification", "binary"):
        raise SettingsError(f"--proba is for classes, but {saved.folder} predicts values; leave it out.")
    with bar(quiet or json) as progress:
        columns, matrix, notes = predicted(saved, data, proba, lambda n: progress.show(f"{n:,} examples", 0.0))
    for note in () if quiet else dict.fromkeys((*saved.notes, *notes)):
        say(note)
    if output is not None:
        write_columns(columns, matrix, output)
    if json:
        print_json({"run": saved.folder, "data": data, "output": output, "predictions": as_rows(columns)})
    elif output is not None:
        print(output)
    elif sys.stdout.isatty():
        show(columns)
    else:
        sys.stdout.write(as_csv(columns))
    return 0


def check_output(output: Path | None, data: str, saved: SavedRun) -> None:
    """Refuses, before anything is computed, a file of an unknown kind and one that must not be replaced.

    Raises:
        SettingsError: such a file.
    """
    from ..record import OWN_FILES

    if output is None:
        return
    if output.suffix.lower() not in _KINDS:
        raise SettingsError(f"--output {output} must end in {', '.join(_KINDS[:-1])} or {_KINDS[-1]}.")
    if not output.parent.is_dir():
        raise SettingsError(f"--output {output}: the folder {output.parent} is not there; make it, or choose another.")
    place = output.resolve()
    if place == Path(data).resolve() or (place.parent == saved.folder.resolve() and place.name in OWN_FILES):
        raise SettingsError(f"--output {output} would replace what is read; choose another name.")


def predicted(saved: SavedRun, data: Any, proba: bool, tell: Any) -> tuple[dict[str, Any], Any, list[str]]:
    """Returns the columns of the predictions, the array that `.npy` keeps, and sentences on the data."""
    import numpy as np

    from ..predictor import pieces, unseen_texts

    outputs, notes = [], []
    source = saved.source(data)
    for raw in pieces(source):
        outputs.append(saved.outputs(saved.inputs(raw)))
        notes += [note for note in raw.notes if note not in notes]
        tell(sum(map(len, outputs)))
    notes += unseen_texts(saved)
    values = np.concatenate(outputs)
    names = [str(path) for path in getattr(source, "paths", ())]
    columns: dict[str, Any] = {"path": names} if len(names) == len(values) else {"row": list(range(1, len(values) + 1))}
    columns |= columns_of(saved, values, proba)
    decided = saved.named(saved.decided(values))
    return columns, saved.probabilities(values) if proba else decided, notes


def columns_of(saved: SavedRun, outputs: np.ndarray, proba: bool) -> dict[str, list[Any]]:
    """Returns named columns: `prediction`, for classes `probability` of it, with `proba` of each one.

    Where an example has several predictions there is a column for each, `prediction_<name or number>`.
    """
    import numpy as np

    decided, shares = saved.decided(outputs), saved.probabilities(outputs)
    n = len(outputs)
    columns = spread("prediction", saved.named(decided), saved.label_names)
    if shares is None:
        return columns
    if saved.kind == "binary":
        likely = np.where(decided == 1, shares, 1 - shares) if decided.ndim == 1 else shares
        columns |= spread("probability", likely, saved.label_names)
        if proba and decided.ndim == 1:
            both = np.stack([1 - shares, shares], axis=-1)
            columns |= spread("probability", both, class_names(saved))
        return columns
    columns |= spread("probability", shares.max(axis=-1), saved.label_names)
    if proba:
        columns |= spread("probability", shares.reshape(n, -1), class_names(saved) if shares.ndim == 2 else None)
    return columns


def class_names(saved: SavedRun) -> list[str]:
    """Returns the names of the classes, or their numbers."""
    return list(saved.classes or map(str, range(max(2, saved.n_outputs))))


def spread(name: str, values: np.ndarray, parts: list[str] | None) -> dict[str, list[Any]]:
    """Returns an array as columns: one of this name for `[n]`, else one for each part.

    Example:
        >>> import numpy as np
        >>> spread("prediction", np.array([[1, 2], [3, 4]]), ["a", "b"])
        {'prediction_a': [1, 3], 'prediction_b': [2, 4]}
    """
    if values.ndim == 1:
        return {name: plain(values)}
    flat = values.reshape(len(values), -1)
    ends = parts if parts is not None and len(parts) == flat.shape[1] else range(flat.shape[1])
    return {f"{name}_{end}": plain(flat[:, i]) for i, end in enumerate(ends)}


def plain(values: np.ndarray) -> list[Any]:
    """Returns a column as a list; numbers with the digits that float32 has."""
    if values.dtype.kind != "f":
        return values.tolist()
    return [float(text) for text in values.astype("float32").astype(str)]


def as_rows(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Returns a dict for each row.

    Example:
        >>> as_rows({"row": [1, 2], "prediction": ["a", "b"]})
        [{'row': 1, 'prediction': 'a'}, {'row': 2, 'prediction': 'b'}]
    """
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def as_csv(columns: dict[str, list[Any]]) -> str:
    r"""Returns columns as CSV.

    Example:
        >>> as_csv({"path": ["a,b.png"], "prediction": [3]})
        'path,prediction\n"a,b.png",3\n'
    """
    import csv

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def write_columns(columns: dict[str, list[Any]], matrix: np.ndarray, path: Path) -> None:
    """Writes predictions in the format that the ending says, whole or not at all; `.npy` holds the array alone.

    Raises:
        SettingsError: the file cannot be written; what was there is unchanged.
    """
    import json

    import numpy as np

    from ..folder import write_whole

    kind = path.suffix.lower()
    if kind == ".csv":
        write_whole(path, lambda file: file.write(as_csv(columns)))
    elif kind == ".json":
        write_whole(path, lambda file: file.write(json.dumps(as_rows(columns), ensure_ascii=False, indent=1) + "\n"))
    elif kind == ".jsonl":
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in as_rows(columns))
        write_whole(path, lambda file: file.writelines(lines))
    elif kind == ".npy":
        write_whole(path, lambda file: np.save(file, matrix, allow_pickle=False), mode="wb")
    else:
        import polars

        data = io.BytesIO()
        polars.DataFrame(columns).write_parquet(data)
        write_whole(path, lambda file: file.write(data.getvalue()), mode="wb")


def show(columns: dict[str, list[Any]]) -> None:
    """Prints the first rows as a table, and how many there are beside them."""
    from .console import results, tell
    from .table import Table

    rows = as_rows(columns)
    made = Table(*columns, n_texts=1)
    for row in rows[:_SHOWN]:
        made.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row.values()))
    results().print(made)
    if len(rows) > _SHOWN:
        tell(f"… and {len(rows) - _SHOWN:,} rows more; --output FILE writes all of them.")
