"""The page in a browser: it draws without an error or a request, fits every screen, and obeys the keyboard."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from backbeat.report import write_page

NASTY = "</script><b>bold</b>"


@pytest.fixture
def shown(browser: Any, tmp_path: Path):
    """Opens the page of a record; at the end nothing may have gone wrong on it, and nothing been asked for."""

    @contextmanager
    def show(record: dict, width: int = 1440, theme: str = "light") -> Iterator[Any]:
        path = write_page(record, tmp_path / "report.html")
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        wrong: list[str] = []
        tab.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda request: wrong.append(request.url) if request.url != path.as_uri() else None)
        tab.goto(path.as_uri())
        tab.wait_for_selector(".facts")
        yield tab
        tab.wait_for_timeout(50)  # drawing is asynchronous
        tab.close()
        assert wrong == []

    return show


def cells(tab: Any, table: str) -> list[list[str]]:
    """The text of a table's body, with every line break as a bar."""
    read = "table => [...table.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.innerText))"
    rows = tab.eval_on_selector(table, read)
    return [[" | ".join(filter(None, (line.strip() for line in cell.split("\n")))) for cell in row] for row in rows]


def ink(tab: Any) -> list[int]:
    """How many pixels of each chart's canvas are drawn upon."""
    return tab.evaluate(
        """() => [...document.querySelectorAll(".chart canvas")].map((canvas) => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let n = 0;
            for (let i = 3; i < data.length; i += 4) n += data[i] > 0;
            return n;
        })"""
    )


def pictures(tab: Any, section: str = "#curves") -> list[str]:
    tab.wait_for_timeout(50)  # drawing is asynchronous
    return tab.evaluate(
        "section => [...document.querySelectorAll(`${section} canvas`)].map((canvas) => canvas.toDataURL())", section
    )


def ticks(tab: Any, chart: int = 0) -> list[float]:
    """The marks on a chart's horizontal axis."""
    tab.wait_for_timeout(50)
    return tab.evaluate("chart => document.querySelectorAll('.chart')[chart].plot.axes[0]._splits", chart)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.sample(2)
def test_every_page_fits_and_draws(
    shown, fake_comparison, fake_run, fake_noisy_run, fake_advice, width: int, theme: str
):
    records = [
        (fake_comparison(), 7),
        (fake_comparison(("32",), troubles=False, name=NASTY), 7),
        (fake_comparison(score="r2", troubles=False, fit=False), 7),
        (fake_comparison(goal=False), 4),
        (fake_advice(name=NASTY), 5),
        (fake_advice(reached=False), 2),
        (fake_run(name=NASTY), 2),
        (fake_run(repeats=True, score="r2", n_rows=9000), 3),
        (fake_noisy_run(), 3),
        (fake_noisy_run(followed=True), 4),
    ]
    for record, n_charts in records:
        with shown(record, width, theme) as tab:
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            drawn = ink(tab)
            assert len(drawn) == n_charts
            assert min(drawn) > 1000
            assert record["data"]["name"] in tab.inner_text("h1")
            assert tab.query_selector("main b") is None
            dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 20, 24)"
            assert dark == (theme == "dark")


def test_the_answer_comes_first_and_whole(shown, fake_comparison):
    record = fake_comparison()
    with shown(record) as tab:
        said = [text.replace("\u00a0", " ") for text in tab.locator("#answer p").all_inner_texts()]
        assert said == record["answer"] + record["notes"]
        assert tab.inner_text("#answer .lead").startswith("Update after every 8 examples")
        tiles = tab.locator(".tile").all_inner_texts()
        assert [tile.split("\n")[0] for tile in tiles] == ["Quickest here", "Fewest examples", "Fewest updates"]
        assert "every 32" in tiles[0]
        assert "every example" in tiles[1]
        assert "within the seeds’ spread of every 128" in tiles[2]


def test_without_a_target_nothing_is_said_about_one(shown, fake_comparison):
    record = fake_comparison(goal=False, troubles=False)
    record["answer"] = ["After 2 ms every 8 has the lowest training loss."]
    with shown(record) as tab:
        assert "target" not in tab.inner_text("main").lower()
        lowest = [tile.split("\n")[0] for tile in tab.locator(".tile").all_inner_texts()]
        assert [text.split(" ")[0] for text in lowest] == ["Lowest"] * 3
        assert len(cells(tab, "#main-table")[0]) == 7
        assert cells(tab, "#tuning-table")[0][3] == "0.03 | 0.100 | chosen"


def small(make) -> dict:
    """A comparison of two cadences with round numbers, so that every cell can be written down."""
    record = make(("1", "dataset"), troubles=False)
    one, full = record["cadences"]
    one |= {
        "learning_rate": 0.03,
        "to_target": {
            "updates": {"median": 1800, "low": 1700, "high": 12345},
            "examples": {"median": 1800, "low": 1700, "high": 12345},
            "epochs": {"median": 1.25, "low": 1.2, "high": 8.59},
            "seconds": {"median": 0.0042, "low": 0.004, "high": 0.0275},
        },
        "final_score": {"median": 0.975, "low": 0.97, "high": 1.0},
        "gradient_norm": {"median": 2.5, "spread": 0.8},
        "seconds_per_update": {"median": 1.3e-6, "low": 1.3e-6, "high": 1.3e-6},
        "compile_seconds": 0.4,
        "tuning": [
            {"learning_rate": 0.01, "updates_to_target": [4000, 2000, None], "diverged": 0, "chosen": False},
            {"learning_rate": 0.03, "updates_to_target": [2000, 2100, 1900], "diverged": 0, "chosen": True},
            {"learning_rate": 0.1, "updates_to_target": [None, None, 900], "diverged": 2, "chosen": False},
        ],
    }
    full |= {
        "learning_rate": 1e-5,
        "to_target": None,
        "reached_share": 0.0,
        "final_score": None,
        "gradient_norm": {"median": None, "spread": None},
        "seconds_per_update": {"median": 177e-6, "low": 170e-6, "high": 190e-6},
        "compile_seconds": None,
        "diverged_share": 1 / 3,
        "widened": 2,
        "tuning": [{"learning_rate": 1e-5, "updates_to_target": [None] * 3, "diverged": 0, "chosen": True}],
    }
    spread = {"median": 0.14, "low": 0.126, "high": 0.2}
    row = {"every": "1", "train_loss_mean": spread, "score": {"median": 0.5, "low": 0.5, "high": 0.5}}
    other = {"every": "dataset", "train_loss_mean": None, "score": {"median": 0.25, "low": 0.2, "high": 0.3}}
    record["equal"] = {name: {"at": 0.002, "rows": [row, other]} for name in ("examples", "updates", "seconds")}
    return record


def test_every_cell_of_the_tables(shown, fake_comparison):
    thin = "\u202f"
    one = "every example | stochastic gradient descent"
    full = "whole data set | gradient descent, full batch, M = 1,437"
    with shown(small(fake_comparison)) as tab:
        text = [[cell.replace(thin, " ") for cell in row] for row in cells(tab, "#main-table")]
        counts = "1,800 | 1,700 to 12,345 | fewest"
        assert text == [
            [
                one,
                "0.03",
                counts,
                counts,
                "1.25 | 1.20 to 8.59 | fewest",
                "4.2 ms | 4 ms to 27.5 ms | quickest",
                "3 of 3",
                "97.5 % | 97.0 % to 100 %",
                "0 of 3",
                "2.50 | ± 80 %",
                "1.3 µs",
                "400 ms",
            ],
            [
                full,
                "1 × 10⁻⁵ | at the grid’s edge",
                "–",
                "–",
                "–",
                "–",
                "0 of 3",
                "–",
                "1 of 3",
                "–",
                "177 µs | 170 µs to 190 µs",
                "–",
            ],
        ]
        equal = [[cell.replace(thin, " ") for cell in row] for row in cells(tab, "#equal-table")]
        assert equal == [
            [one] + ["0.140 | 0.126 to 0.200", "50.0 % | highest"] * 3,
            [full] + ["–", "25.0 % | 20.0 % to 30.0 %"] * 3,
        ]
        tuned = [[cell.replace(thin, " ") for cell in row] for row in cells(tab, "#tuning-table")]
        assert tuned == [
            [
                one,
                "0.01 | 3,000 | 2 of 3 seeds",
                "0.03 | 2,000 | chosen",
                "0.1 | – | 1 of 3 seeds | 2 diverged",
                "best inside | widened once",
            ],
            [full, "1 × 10⁻⁵ | – | chosen", "", "best at its edge | widened twice"],
        ]


def test_leads_within_the_spread_of_the_seeds_are_tied(shown, fake_comparison):
    record = small(fake_comparison)
    one, full = record["cadences"]
    full["to_target"] = {**one["to_target"], "updates": {"median": 50, "low": 40, "high": 1700}}
    full["reached_share"] = 1.0
    full["to_target"]["seconds"] = {"median": 1.0, "low": 0.9, "high": 1.1}
    with shown(record) as tab:
        rows = cells(tab, "#main-table")
        assert [row[2].split(" | ")[-1] for row in rows] == ["fewest, tied"] * 2
        assert [row[5].split(" | ")[-1] for row in rows] == ["quickest", "900\u202fms to 1.1\u202fs"]
        seen = tab.locator("#needs .card .seen").all_inner_texts()
        assert "with no clear lead over every example" in seen[0]
        assert "no clear lead" not in seen[2]


def test_the_cells_of_a_run_with_repeats(shown, fake_run):
    with shown(fake_run(repeats=True)) as tab:
        assert cells(tab, "#repeats-table")[0][:3] == ["0", "812", "56.5\u202f%"]
        losses = [
            ["the batch itself", "0.83", "0.06", "−92.8\u202f%"],
            ["the rest of the data", "0.71", "0.78", "+9.9\u202f%"],
        ]
        assert cells(tab, "#repeats-losses") == losses
        assert "Learning rate 0.28, chosen by a range test" in tab.inner_text("#rates")
        assert "updated: every example, repeated until loss<0.1, at most 10 times" in tab.inner_text(".context")
        assert "meanwhile the loss of the rest rose (0.71 to 0.78)" in tab.inner_text("#repeats")
        bars = tab.eval_on_selector_all(".bar", "bars => bars.map(bar => bar.offsetWidth)")
        assert bars[0] == max(bars)
        assert bars[1] == pytest.approx(bars[0] * 301 / 812, abs=1.5)


def hovered(tab: Any, label: str, keys: tuple[str, ...]) -> str:
    """What a chart says of the values where the keys lead."""
    tab.locator(f"[aria-label^='Chart: {label}']").focus()
    for key in keys:
        tab.keyboard.press(key)
    return tab.locator(f"[aria-label^='Chart: {label}'] .hover").inner_text()


def test_the_noise_of_a_run_and_the_batch_that_followed_it(shown, fake_noisy_run):
    with shown(fake_noisy_run(followed=True)) as tab:
        said = tab.inner_text("#noise")
        assert "Noise scale 157 examples (95 % interval 133 to 192) over 900 updates." in said
        followed = "The batch followed the noise: 8 examples, 32 from update 41, 64 from update 91."
        assert followed in tab.inner_text("#along")
        assert "updated: as the noise asks, 8 to 64" in tab.inner_text(".context")
        tab.locator(".toolbar input[value=examples]").check(force=True)
        labels = tab.eval_on_selector_all(".chart", "charts => charts.map(chart => chart.ariaLabel)")
        assert {"Chart: noise scale against examples", "Chart: examples in a batch, M against examples"} <= {
            label.split(". ")[0] for label in labels
        }
        assert "90 (60 to 120)" in hovered(tab, "noise scale", ("ArrowRight",) * 30)
        assert "60 (45 to ∞)" in hovered(tab, "noise scale", ("ArrowLeft",) * 34)
        drawn = "chart => [chart.plot.scales.y.min, chart.plot.scales.y.max]"
        low, high = tab.eval_on_selector("#noise .chart", drawn)
        assert low == pytest.approx(30 / 1.4)
        assert high == 4 * 90
        steps = tab.eval_on_selector("[aria-label^='Chart: examples in a batch']", "chart => chart.plot.data[1]")
        assert set(steps) <= {8, 32, 64, None}


def test_a_run_whose_noise_is_not_known_says_so_without_a_chart(shown, fake_noisy_run):
    record = fake_noisy_run()
    for name in ("noise_scale", "noise_scale_low", "noise_scale_high"):
        record["history"][name] = [None] * 6
    record["noise"] = {"sentence": "noise scale: not measured, no batch had more than one example"}
    with shown(record) as tab:
        assert tab.locator("#noise canvas").count() == 0
        assert "Noise scale: not measured" in tab.inner_text("#noise")


def test_the_axes_switch_by_keyboard(shown, fake_comparison):
    with shown(fake_comparison(troubles=False)) as tab:
        logarithmic = ticks(tab)
        assert all(str(int(tick)).strip("0") in {"1", "2", "3", "5"} for tick in logarithmic)
        before = pictures(tab)
        tab.locator("#curves .card >> nth=0 >> input[value=log]").focus()
        tab.keyboard.press("ArrowRight")
        assert tab.locator("#curves .card >> nth=0 >> input[value=linear]").is_checked()
        after = pictures(tab)
        assert [a == b for a, b in zip(after, before, strict=True)] == [False, True, True]
        linear = ticks(tab)
        gaps = {round(b - a) for a, b in pairwise(linear)}
        assert len(gaps) == 1
        tab.locator(".toolbar fieldset >> nth=1 >> input[value=log]").focus()
        tab.keyboard.press("ArrowRight")
        assert [a == b for a, b in zip(pictures(tab), after, strict=True)] == [False] * 3


def test_the_measure_switches_by_keyboard(shown, fake_comparison):
    with shown(fake_comparison()) as tab:
        tab.locator(".toolbar input[value=train_loss_mean]").focus()
        tab.keyboard.press("ArrowRight")
        tab.keyboard.press("ArrowRight")
        assert tab.locator(".toolbar input[value=held_out_accuracy]").is_checked()
        assert tab.inner_text("#curves h3 >> nth=1") == "Held-out accuracy by updates"
        assert tab.locator(".toolbar fieldset >> nth=1 >> input[value=linear]").is_checked()
        tab.locator(".toolbar fieldset >> nth=1 >> input[value=linear]").focus()
        tab.keyboard.press("ArrowLeft")
        assert tab.inner_text("#curves h3 >> nth=1") == "1 − held-out accuracy by updates"


def test_the_legend_hides_a_cadence_everywhere_by_keyboard(shown, fake_comparison):
    with shown(fake_comparison()) as tab:
        before = pictures(tab)
        button = tab.get_by_role("button", name="every 32")
        button.focus()
        tab.keyboard.press("Space")
        assert button.get_attribute("aria-pressed") == "false"
        assert [a == b for a, b in zip(pictures(tab), before, strict=True)] == [False] * 3
        tab.keyboard.press("Enter")
        assert button.get_attribute("aria-pressed") == "true"
        assert pictures(tab) == before


def test_values_are_read_with_arrow_keys_and_with_the_mouse(shown, fake_comparison):
    with shown(fake_comparison(troubles=False)) as tab:
        chart = tab.locator("#curves .chart >> nth=1")
        chart.focus()
        tab.keyboard.press("ArrowLeft")
        said = chart.locator(".hover").inner_text()
        assert "updates" in said
        assert "every 32" in said
        tab.keyboard.press("Escape")
        assert chart.locator(".hover").is_hidden()
        chart.locator(".u-over").hover()
        assert chart.locator(".hover").is_visible()


def test_every_control_can_be_reached_and_has_a_name(shown, fake_comparison, fake_run, fake_advice):
    for record in (fake_comparison(), fake_run(repeats=True), fake_advice()):
        with shown(record) as tab:
            nameless = tab.evaluate(
                """() => [...document.querySelectorAll("button, input, [tabindex]")].filter((element) => {
                    const own = element.getAttribute("aria-label") || element.textContent;
                    const name = own || (element.closest("label") || {}).textContent;
                    return !name || element.tabIndex < 0;
                }).map((element) => element.outerHTML)"""
            )
            assert nameless == []
            tab.keyboard.press("Tab")
            outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid"


def test_the_theme_changes_by_button_and_redraws(shown, fake_run):
    with shown(fake_run()) as tab:
        before = pictures(tab)
        tab.get_by_role("button", name="Change to dark colours").press("Enter")
        assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
        assert pictures(tab) != before
        tab.get_by_role("button", name="Change to light colours").press("Enter")
        assert pictures(tab) == before


def test_a_newer_record_takes_the_place_and_the_switches_stay(shown, fake_run):
    with shown(fake_run(n_rows=50)) as tab:
        tab.evaluate("globalThis.view = backbeat.show(JSON.parse(record.textContent), document.getElementById('page'))")
        tab.locator(".toolbar input[value=epochs]").check(force=True)
        newer = fake_run(n_rows=400)
        tab.evaluate("newer => view.update(newer)", newer)
        assert tab.locator(".toolbar input[value=epochs]").is_checked()
        assert tab.locator(".chart canvas").count() == 2
        assert "2,000 updates" in tab.inner_text("#answer")


def test_a_large_comparison_is_quick(shown, fake_comparison):
    every = ("1", "8", "32", "64", "128", "256", "512", "dataset")
    with shown(fake_comparison(every, n_seeds=10, n_points=200)) as tab:
        spent = tab.evaluate(
            """() => {
                const start = performance.now();
                backbeat.show(JSON.parse(record.textContent), document.getElementById("page"));
                return performance.now() - start;
            }"""
        )
        assert spent < 4000  # milliseconds; about 200 on two idle cores, more while other tests run


def test_the_answer_of_advice_comes_first_and_what_is_computed_stands_apart(shown, fake_advice):
    record = fake_advice()
    with shown(record) as tab:
        said = [text.replace("\u00a0", " ") for text in tab.locator("#answer p").all_inner_texts()]
        assert said == [
            record["answer"][0], "The critical batch size (Bcrit) is about 22.", record["next"]
        ]  # fmt: skip
        assert tab.inner_text("#elsewhere-title") == "What if: 8 devices, each like this machine"
        assert tab.inner_text("#elsewhere .computed") == "Computed, not measured"
        assert record["answer"][2] in tab.inner_text("#elsewhere")
        notes = tab.locator("#notes li").all_inner_texts()
        assert [note.replace("\u00a0", " ") for note in notes] == [*record["notes"], *record["data"]["notes"]]
        titles = tab.locator("main h3").all_inner_texts()
        assert titles == [
            "What an update costs", "How many updates are needed", "Time to the target",
            "The learning rate over the batch size", "The gradient’s noise scale along a run",
        ]  # fmt: skip


def plain_cells(tab: Any, table: str) -> list[list[str]]:
    return [[cell.replace("\u202f", " ") for cell in row] for row in cells(tab, table)]


def test_every_cell_of_the_tables_of_advice(shown, fake_advice):
    with shown(fake_advice()) as tab:
        first, few, last = plain_cells(tab, "#wishes-table")
        assert first == [
            "Finish first", "16 examples", "0.421", "200 | 167 to 240", "3,200 | 2,667 to 3,840",
            "2.23 | 1.86 to 2.67", "2.4 ms | 1.71 ms to 3.36 ms", "no other",
        ]  # fmt: skip
        assert few[:4] == ["Fewest examples", "4 examples", "0.154", "546 | 455 to 655"]
        assert last[:2] == ["Fewest updates", "the whole data set | M = 1,437"]
        seen = plain_cells(tab, "#confirmed-table")
        assert seen == [
            ["16 examples", "0.421", "200 | 167 to 240", "200 | 210, 200, 190", "2.4 ms | 1.71 ms to 3.36 ms",
             "2.4 ms | 2.5 ms, 2.4 ms, 2.3 ms", "as predicted"],
            ["4 examples", "0.154", "546 | 455 to 655", "– | 560, –, 550", "3.28 ms | 2.34 ms to 4.59 ms",
             "– | 3.4 ms, –, 3.3 ms", "2 of 3 runs met the target"],
            ["64 examples", "0.744", "113 | 94 to 136", "–", "4.07 ms | 2.91 ms to 5.7 ms", "–",
             "not run, for lack of time"],
        ]  # fmt: skip
        sizes = plain_cells(tab, "#sizes-table")
        assert sizes[0] == [
            "each example", "0.0435 | 3 tried", "3 of 3", "1,932 | 1,928 to 1,938", "4.5 µs", "8.69 ms",
            "rate on the edge of those tried, left out of the fit",
        ]  # fmt: skip
        assert sizes[2][-1] == "finish first"
        assert sizes[3][4] == "36 µs | interpolated"
        reason = "not measured: one run of it would take 3 s of the 1 s left"
        assert sizes[5] == ["512 examples", "–", "–", "not measured", "260 µs", "–", reason]
        assert plain_cells(tab, "#elsewhere-table") == [
            ["16 examples", "90 | 75 to 108", "20 µs", "2 ms | 1 ms to 4 ms", ""],
            ["the whole data set", "90 | 75 to 108", "20 µs", "1 ms | 500 µs to 2 ms", "quickest there"],
        ]


def test_the_numbers_of_the_charts_unfold_by_keyboard(shown, fake_advice):
    with shown(fake_advice()) as tab:
        assert tab.locator("#hardware-table").is_hidden()
        for place in (0, 1):
            tab.locator("#numbers summary").nth(place).press("Enter")
        assert plain_cells(tab, "#hardware-table")[-1] == [
            "1,437", "723 µs | 650 µs to 867 µs", "503 ns", "723 µs", "7", "1,024"
        ]  # fmt: skip
        noise = plain_cells(tab, "#noise-table")
        assert noise[0] == ["0", "2.30", "10 | 8 to 14", "0.500", "6.00"]
        assert noise[2][2] == "not known"


def test_the_charts_of_advice_say_the_nearest_size_with_its_range(shown, fake_advice):
    with shown(fake_advice()) as tab:
        chart = tab.locator("#time .chart >> nth=1")
        chart.focus()
        for _ in range(23):  # from the middle to the first batch size, a fiftieth of the width at a time
            tab.keyboard.press("ArrowLeft")
        lines = [text.replace("\u202f", " ").split("\n") for text in chart.locator(".hover p").all_inner_texts()]
        assert ["M = 1, measured", "1,932 (1,928 to 1,938)"] in lines
        assert lines[0][0].startswith("at M ≈")


def test_what_is_read_off_a_chart_stays_within_a_narrow_screen(shown, fake_advice):
    with shown(fake_advice(), 360) as tab:
        for place in range(3):
            chart = tab.locator("#time .chart").nth(place)
            for share in (0.1, 0.5, 0.9):
                over = chart.locator(".u-over")
                over.scroll_into_view_if_needed()
                over.hover(position={"x": share * over.bounding_box()["width"], "y": 20})
                box, host = chart.locator(".hover").bounding_box(), chart.bounding_box()
                assert host["x"] <= box["x"]
                assert box["x"] + box["width"] <= host["x"] + host["width"] + 0.5  # half a pixel of rounding
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360


def test_advice_that_found_nothing_says_so(shown, fake_advice):
    record = fake_advice(reached=False)
    with shown(record) as tab:
        assert tab.inner_text("#answer .lead") == record["answer"][0]
        assert "there are no updates and no time to draw" in tab.inner_text("#time")
        assert "The noise scale along a run was not measured." in tab.inner_text("#steering")
        assert tab.locator("#wishes, #confirmed, #elsewhere-table").count() == 0
        row = plain_cells(tab, "#sizes-table")[1]
        assert row[2:4] == ["2 of 3", "not reached | 546 to 552"]
        assert row[-1] == "not met with every seed"
    with shown(fake_advice(fit=False)) as tab:
        assert "Bcrit is not known from these runs" in tab.inner_text("#time")
    with shown(fake_advice(tunable=False)) as tab:
        assert plain_cells(tab, "#wishes-table")[0][2] == "the optimizer’s own"
        assert "learning rate is the optimizer’s own" in tab.inner_text("#steering")
