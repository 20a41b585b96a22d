"""The picture of advice shows the numbers of its record, marks the recommended batch size, and names what is absent."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backbeat.report import advice_figure, save_figure


def panels(record: dict) -> list[Any]:
    return advice_figure(record).axes


def title(axes: Any) -> str:
    return axes.get_title(loc="left")


def line(axes: Any, label: str) -> tuple[np.ndarray, np.ndarray]:
    """The points of the line of that name."""
    found = next(one for one in axes.lines if one.get_label() == label)
    return np.asarray(found.get_xdata(), float), np.asarray(found.get_ydata(), float)


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_an_updates_time_is_drawn_with_its_line(fake_advice):
    record = fake_advice()
    hardware = panels(record)[0]
    points = record["hardware"]["points"]
    sizes, seconds = line(hardware, "measured")
    assert sizes.tolist() == [point["batch_size"] for point in points]
    assert seconds.tolist() == [point["median"] for point in points]
    at, fitted = line(hardware, "α + β M")
    np.testing.assert_allclose(fitted, 4e-6 + 0.5e-6 * at, rtol=1e-12)  # the same sum
    assert title(hardware) == "What an update costs: 4 µs and 500 ns an example"
    ranges = [segment[:, 1].tolist() for segment in hardware.collections[0].get_segments()]
    assert ranges == [[point["low"], point["high"]] for point in points]


def test_the_law_of_updates_is_drawn_with_its_limits_and_regimes(fake_advice):
    axes = panels(fake_advice())[1]
    curves = [one for one in axes.lines if len(one.get_xdata()) == 200]
    m = np.asarray(curves[0].get_xdata(), float)
    law, falling, floor = (np.asarray(curve.get_ydata(), float) for curve in curves)
    np.testing.assert_allclose(law, falling + floor, rtol=1e-12)  # S_min B_crit / M + S_min
    np.testing.assert_allclose(falling * m, 84.0 * 22.0, rtol=1e-12)
    assert set(floor) == {84.0}
    assert title(axes) == "How many are needed: $B_{crit}$ = 22 (16 to 31)"
    assert texts(axes) == ["slope −1", "bend", "flat", "recommended"]
    dots = {float(one.get_xdata()[0]): one for one in axes.lines if len(one.get_xdata()) == 1}
    assert {m: float(dot.get_ydata()[0]) for m, dot in dots.items()} == {
        1: 1932, 4: 546, 16: 200, 64: 113, 256: 91, 1437: 85,
    }  # fmt: skip
    hollow = [m for m, dot in dots.items() if dot.get_markerfacecolor() != dot.get_markeredgecolor()]
    assert hollow == [1]  # left out of the fit


def test_predicted_and_real_times_are_drawn_and_the_recommended_size_is_marked(fake_advice):
    record = fake_advice()
    axes = panels(record)[2]
    sizes, predicted = line(axes, "predicted")
    assert sizes.tolist() == [1, 4, 16, 64, 256, 1437]
    assert predicted.tolist() == [size["seconds_to_target"] for size in record["sizes"] if size["reached"]]
    size, seen = line(axes, "real runs")
    expected = [(16, 0.0025), (16, 0.0024), (16, 0.0023), (4, 0.0034), (4, 0.0033)]
    assert list(zip(size, seen, strict=True)) == expected
    m, product = line(axes, "both fits multiplied")
    np.testing.assert_allclose(product, 84 * (1 + 22 / m) * (4e-6 + 0.5e-6 * m), rtol=1e-12)
    assert title(axes) == "Time to the target: 2.4 ms (1.71 ms to 3.36 ms)"
    for marked in panels(record)[:3]:
        upright = [one for one in marked.lines if list(one.get_xdata()) == [16, 16]]
        assert [list(one.get_ydata()) for one in upright] == [[0, 1]]
        assert "recommended" in texts(marked)


def test_the_noise_scale_is_drawn_with_its_intervals(fake_advice):
    axes = panels(fake_advice())[3]
    assert axes.lines[1].get_xdata().tolist() == [0, 20, 60, 80, 100]  # at 40 it is not known
    assert axes.lines[1].get_ydata().tolist() == [10, 11, 13, 14, 15]
    corners = axes.collections[0].get_paths()[0].vertices
    at = {x: sorted(set(corners[corners[:, 0] == x][:, 1])) for x in (20.0, 60.0, 80.0)}
    assert at == {20.0: [11.0, 15.0], 60.0: [8.0, 13.0], 80.0: [8.0, 18.0]}  # an end that is not known: the value
    assert title(axes) == "Noise scale along a run: 12 examples (11 to 14)"


def test_what_is_absent_is_named(fake_advice):
    shown = panels(fake_advice(reached=False))
    assert [texts(axes) for axes in shown[1:]] == [["no batch size met the target"]] * 2 + [["not measured"]]
    assert len(line(shown[0], "measured")[0]) == 6
    assert "recommended" not in texts(shown[0])
    axes = panels(fake_advice(fit=False))[1]
    assert title(axes) == "How many are needed: $B_{crit}$ is not known"
    assert not [one for one in axes.lines if len(one.get_xdata()) == 200]


@pytest.mark.parametrize(
    "settings",
    [{}, {"reached": False}, {"fit": False, "noise": False, "tunable": False}, {"name": "$\\frac$ </script>"}],
    ids=["whole", "nothing reached", "little known", "nasty name"],
)
def test_every_advice_can_be_written_the_same_each_time(fake_advice, settings: dict, tmp_path: Path):
    for ending in ("png", "svg"):
        first = save_figure(advice_figure(fake_advice(**settings)), tmp_path / f"first.{ending}").read_bytes()
        assert save_figure(advice_figure(fake_advice(**settings)), tmp_path / f"again.{ending}").read_bytes() == first


def test_the_title_says_what_to_set(fake_advice):
    def headline(record: dict) -> str:
        return advice_figure(record).texts[0].get_text()

    record = fake_advice()
    assert headline(record) == "mlp:32 on digits: update after 16 examples, learning rate 0.421"
    assert headline(fake_advice(tunable=False)) == "mlp:32 on digits: update after 16 examples"
    assert headline(fake_advice(reached=False)) == "No batch size met the target in the time given"
    record["finish_first"] = record["fewest_updates"]
    assert "update after the whole data set" in headline(record)
    assert [text.get_horizontalalignment() for text in advice_figure(record).axes[0].texts] == [
        "right"
    ]  # it is at the right end
