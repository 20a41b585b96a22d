"""Pictures of an evaluation show the counts that they are given."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backbeat.report import save_figure
from backbeat.report.confusion import confusion_figure, predicted_figure


def words(figure: Any) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text)]


def test_each_count_stands_in_its_cell_and_the_shade_is_the_share_of_its_row():
    matrix = np.array([[30, 10, 0], [0, 5, 0], [0, 0, 0]])
    figure = confusion_figure(matrix, ["cat", "dog", "emu"], "35 of 45 are right", "mlp on pets")
    axes: Any = figure.axes[0]
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "30", (1, 0): "10", (1, 1): "5"}  # (predicted, true); a zero is left out
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert {"cat", "dog", "emu", "35 of 45 are right", "mlp on pets"} <= set(words(figure))


@pytest.mark.parametrize(
    ("n", "name"), [(2, "$\\frac$ <b>"), (26, "a rather long name of a class that goes on"), (300, "c")]
)
def test_any_number_of_classes_and_any_names_can_be_drawn(n: int, name: str, tmp_path: Path):
    matrix = np.random.default_rng(0).integers(0, 10**6, (n, n))
    figure = confusion_figure(matrix, [f"{name}{i}" for i in range(n)], "a title " * 30, "context")
    path = save_figure(figure, tmp_path / "confusion.png")
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    axes: Any = figure.axes[0]
    inside = axes.get_tightbbox().transformed(figure.transFigure.inverted())  # nothing is cut off at the sheet's edge
    assert inside.x0 > 0
    assert inside.y0 > 0
    assert inside.x1 < 1
    title = figure.texts[1].get_window_extent().transformed(figure.transFigure.inverted())
    assert inside.y1 < title.y0
    assert len(axes.texts) == (np.count_nonzero(matrix) if n <= 30 else 0)


def test_values_are_drawn_as_points_beside_the_line_of_equality():
    rng = np.random.default_rng(0)
    label, prediction = rng.normal(size=(40, 6)), rng.normal(size=(40, 6))
    figure = predicted_figure(label, prediction, [f"y{i}" for i in range(6)], "R² 0", "linear on noise")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["y0", "y1", "y2", "y3"]
    for i, axes in enumerate(figure.axes):
        line, points = axes.lines
        np.testing.assert_array_equal(points.get_xdata(), label[:, i])
        np.testing.assert_array_equal(points.get_ydata(), prediction[:, i])
        np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())


def test_the_same_numbers_give_the_same_svg(tmp_path: Path):
    drawn = [
        save_figure(confusion_figure(np.eye(3, dtype=int), "abc", "t", "c"), tmp_path / f"{i}.svg").read_bytes()
        for i in range(2)
    ]
    assert drawn[0] == drawn[1]
    many = np.linspace(0, 1, 3000)[:, None]
    drawn = [
        save_figure(predicted_figure(many, many, ["y"], "t", "c"), tmp_path / f"{i}.svg").read_bytes() for i in range(2)
    ]
    assert drawn[0] == drawn[1]
