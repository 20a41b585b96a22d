"""Pictures show the numbers of the record, and the same record gives the same file."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backbeat.errors import SettingsError
from backbeat.report import comparison_figure, run_figure, save_figure
from backbeat.report.bands import band, loss_measure
from backbeat.report.style import COLOURS, colours

STATIC = Path(__file__).resolve().parents[2] / "src" / "backbeat" / "web" / "static"


def words(figure: Any) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_the_band_is_the_median_and_range_over_seeds(fake_comparison):
    record = fake_comparison(troubles=False, n_seeds=5)
    for cadence in record["cadences"]:
        losses = np.array([run["curve"]["train_loss_mean"] for run in cadence["runs"]])
        seconds = np.array([run["curve"]["seconds"] for run in cadence["runs"]])
        drawn = band(cadence, "seconds", "train_loss_mean")
        np.testing.assert_array_equal(drawn.x, np.sort(seconds, axis=0)[2])
        np.testing.assert_array_equal(drawn.median, np.sort(losses, axis=0)[2])
        np.testing.assert_array_equal(drawn.low, losses.min(axis=0))
        np.testing.assert_array_equal(drawn.high, losses.max(axis=0))


def test_a_run_that_diverged_counts_as_long_as_it_ran(fake_comparison):
    cadence = fake_comparison()["cadences"][1]
    lengths = [len(run["curve"]["updates"]) for run in cadence["runs"]]
    assert min(lengths) < max(lengths)
    drawn = band(cadence, "updates", "train_loss_mean")
    assert len(drawn.x) == max(lengths)
    others = [run["curve"]["train_loss_mean"][-1] for run in cadence["runs"] if run["diverged_at"] is None]
    assert (drawn.low[-1], drawn.high[-1]) == (min(others), max(others))


def test_values_that_are_missing_are_left_out():
    runs = [{"curve": {"updates": [0, 1, 2], "loss": [None, 3.0, float("nan")]}}, {"curve": {}}]
    assert band({"runs": runs}, "updates", "loss").median.tolist() == [3.0]
    assert len(band({"runs": []}, "updates", "loss").x) == 0


def test_a_target_that_was_met_before_the_first_update_is_drawn(fake_comparison):
    record = fake_comparison(troubles=False)
    for cadence in record["cadences"]:
        for clock in ("updates", "examples", "seconds"):
            cadence["to_target"][clock] |= {"low": 0, "median": 0}
    figure = comparison_figure(record)
    needs = [axes for axes in figure.axes if axes.get_ylabel() == "updates to the target"]
    assert [axes.get_ylim()[0] for axes in needs] == [0]


def test_the_comparison_shows_its_curves_and_the_fit(fake_comparison):
    record = fake_comparison()
    figure = comparison_figure(record)
    by_label = {axes.get_xlabel(): axes for axes in figure.axes}
    assert {"examples", "updates", "time", "examples in a batch, M"} <= by_label.keys()
    lines = {line.get_label(): line for line in by_label["examples"].lines}
    drawn = band(record["cadences"][2], "examples", "train_loss_mean")
    np.testing.assert_array_equal(lines["every 32"].get_ydata(), drawn.median[1:])  # no zero on a logarithmic axis
    needs = next(axes for axes in figure.axes if axes.get_ylabel() == "updates to the target")
    fit = record["fit"]
    curves = [line for line in needs.lines if len(np.atleast_1d(line.get_xdata())) == 200]
    size, height = np.asarray(curves[0].get_xdata()), np.asarray(curves[0].get_ydata())
    np.testing.assert_allclose(height, fit["s_min"] + fit["s_min"] * fit["b_crit"] / size, rtol=1e-12)
    assert needs.get_title(loc="left") == "Fewest updates: every 256 or 1 other"
    said = words(figure)
    for text in (
        "84 updates",
        "22 examples (16 to 31)",
        "a run diverged",
        "not in every run",
        "mlp:32 on digits",
        "≥ 0.95",
    ):
        assert text in said


@pytest.mark.parametrize(
    "settings",
    [
        {"every": ("32",)},
        {"score": "r2", "troubles": False},
        {"every": ("1", "2", "4", "8", "16", "32", "64", "128", "dataset"), "fit": False},
        {"name": "$\\frac$ </script>"},
    ],
    ids=["one", "r2", "nine", "nasty name"],
)
def test_every_comparison_can_be_drawn_and_written(fake_comparison, settings: dict, tmp_path: Path):
    path = save_figure(comparison_figure(fake_comparison(**settings)), tmp_path / "comparison.png")
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_comparison_in_which_nothing_reached_the_target(fake_comparison, tmp_path: Path):
    record = fake_comparison(fit=False)
    for cadence in record["cadences"]:
        cadence["to_target"] = None
    figure = comparison_figure(record)
    assert [axes.get_title(loc="left") for axes in figure.axes].count("The target was not reached in every run") == 3
    save_figure(figure, tmp_path / "comparison.svg")


def test_a_comparison_without_a_target_shows_equal_budgets(fake_comparison, tmp_path: Path):
    record = fake_comparison(goal=False)
    figure = comparison_figure(record)
    assert "target" not in words(figure).replace(record["answer"][0], "").lower()
    budget = record["equal"]["updates"]
    best = min(budget["rows"], key=lambda row: row["train_loss_mean"]["median"])
    assert best["every"] == "dataset"
    assert f"Lowest after {budget['at']} updates: whole data set" in words(figure)
    record["equal"] = {}
    save_figure(comparison_figure(record), tmp_path / "comparison.svg")


def test_the_held_out_loss_stands_in_where_no_training_loss_was_evaluated(fake_comparison):
    record = fake_comparison()
    for cadence in record["cadences"]:
        for run in cadence["runs"]:
            run["curve"]["train_loss_mean"] = [None] * len(run["curve"]["updates"])
    assert loss_measure(record) == "held_out_loss_mean"
    assert "Held-out loss by updates" in words(comparison_figure(record))


def test_a_run_shows_losses_score_and_repeats(fake_run):
    figure = run_figure(fake_run(repeats=True))
    losses, score, repeats, rates = figure.axes
    assert [line.get_label() for line in losses.lines] == ["loss of the batches", "training loss", "held-out loss"]
    assert score.get_title(loc="left") == "Held-out accuracy: 0.978 at the end"
    assert rates.get_title(loc="left") == "Range test: 0.28 chosen"
    np.testing.assert_array_equal(rates.lines[0].get_ydata(), [1.5, 1.1, 0.9, 2.0, 2 * 2.3 - 0.9])  # not finite: on top
    heights = [bar.get_height() for bar in repeats.patches]  # type: ignore[attr-defined]  # they are rectangles
    assert sum(heights) == pytest.approx(100)
    assert len(run_figure(fake_run(score="r2")).axes) == 2
    assert "held-out R²" in words(run_figure(fake_run(score="r2")))


def test_a_run_shows_its_noise_and_the_batch_that_followed(fake_noisy_run):
    record = fake_noisy_run(followed=True)
    noise = run_figure(record).axes[-1]
    assert noise.get_yscale() == "log"
    assert noise.get_title(loc="left") == "Noise scale: 157 (133 to 192) examples"
    scale, size = noise.lines
    np.testing.assert_array_equal(scale.get_ydata(), [40, 60, np.nan, np.nan, np.nan, 90])
    updates = record["history"]["updates"]
    ends = [0, *np.repeat(updates[:2], 2), updates[2], *updates[3:5], *updates[4:]]
    np.testing.assert_array_equal(size.get_xdata(), ends)
    np.testing.assert_array_equal(size.get_ydata(), np.repeat([8, 8, 32, 32, 64], 2))
    bars = [np.asarray(path.vertices)[:, 1].tolist() for path in noise.collections[0].get_paths()]
    assert bars == [[30, 55], [45, 360], [70, 360], [60, 120]]  # no upper end: to the edge, 4 times the greatest


def test_noise_that_is_not_known_is_said_so(fake_noisy_run):
    record = fake_noisy_run()
    record["noise"] |= {"known": False, "scale": None, "high": None}
    assert run_figure(record).axes[-1].get_title(loc="left") == "Noise scale: at least 133 examples"
    assert len(run_figure(record).axes[-1].lines) == 1
    for name in ("noise_scale", "noise_scale_low", "noise_scale_high"):
        record["history"][name] = [None] * 6
    record["noise"] |= {"low": 0.0, "n_updates": 0}
    assert run_figure(record).axes[-1].get_title(loc="left") == "Noise scale: not known"


def test_the_same_record_gives_the_same_svg(fake_comparison, fake_run, tmp_path: Path):
    for draw, make in ((comparison_figure, fake_comparison), (run_figure, fake_run)):
        first = save_figure(draw(make()), tmp_path / "first.svg").read_bytes()
        again = save_figure(draw(make()), tmp_path / "again.svg").read_bytes()
        assert first == again
        assert b"<dc:date>" not in first


def test_a_failing_write_leaves_the_earlier_file(fake_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run.svg"
    path.write_text("earlier")
    figure = run_figure(fake_run())

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(SettingsError, match="No space left on device"):
        save_figure(figure, path)
    assert path.read_text() == "earlier"
    assert [file.name for file in tmp_path.iterdir()] == ["run.svg"]


def test_other_endings_are_refused(fake_run):
    with pytest.raises(SettingsError, match=r"does not end in \.png or \.svg"):
        save_figure(run_figure(fake_run()), "run.pdf")


def test_matplotlib_is_imported_late_and_pyplot_never():
    code = (
        "import sys, backbeat.report as report; early = 'matplotlib' in sys.modules; "
        "report.run_figure({'history': {'updates': [1, 2], 'loss_mean': [2.0, 1.0]}}); "
        "print(early, 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_page_and_pictures_have_the_same_colours():
    css = (STATIC / "backbeat.css").read_text(encoding="utf-8")
    light = css.split(':root[data-theme="dark"]')[0]
    assert [f"--cadence-{i}: {colour};" in light for i, colour in enumerate(COLOURS)] == [True] * 8


def test_colours_keep_their_order_and_differ():
    for n in range(1, 9):
        places = [COLOURS.index(colour) for colour in colours(n)]
        assert places == sorted(set(places)), n
    assert len(colours(11)) == 11
