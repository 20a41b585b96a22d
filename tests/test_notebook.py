"""What a notebook shows, in a real kernel: how far something is while it goes on, and each result by itself."""

import base64
import html
import io
import re
from typing import Any

import numpy as np
import pytest

import backbeat as bb
from backbeat.clock import Clock, Durations
from backbeat.events import Evaluated, Finished, Started, StretchDone
from backbeat.notebook import RunShown, in_place, shown


class Notebook:
    """A notebook that is run cell by cell; `seen` has all that a cell ever showed, also what was replaced."""

    def __init__(self, cells: list[str]) -> None:
        import nbformat
        from nbclient import NotebookClient

        seen: list[list[str]] = [[] for _ in cells]

        class Client(NotebookClient):
            def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
                if msg["msg_type"] in ("display_data", "update_display_data", "execute_result"):
                    seen[cell_index].append(msg["content"]["data"].get("text/html", ""))
                return super().process_message(msg, cell, cell_index)

        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
        Client(book, timeout=300, kernel_name="python3").execute()
        self.seen, self.outputs = seen, [cell.outputs for cell in book.cells]

    def html(self, cell: int) -> str:
        """Returns what stays of a cell's output as HTML."""
        return "".join(output.get("data", {}).get("text/html", "") for output in self.outputs[cell])


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Notebook:
    folder = tmp_path_factory.mktemp("kernels")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(name, str(folder))
        patch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
        return Notebook([
            "import backbeat as bb; run = bb.fit(bb.mlp(hidden=(8,)), 'digits', duration='2.5 s')",
            "run",
            "run.plot()",
            "bb.compare(bb.linear(), 'iris', every=[8, 'dataset'], learning_rates=[0.1, 1], budget='3 s')",
            "bb.fit(bb.linear(), 'iris', duration='3 updates').reason",
            "bb.fit(bb.mlp(), 'digits', duration='1.5 s', on_event=lambda event: None).reason",
            "bb.verify(bb.linear(), 'iris')",
            "for event in bb.train(bb.linear(), 'iris', duration='1 s'): pass",
        ])  # fmt: skip


def picture(text: str) -> Any:
    from PIL import Image

    found = re.search(r'src="data:image/png;base64,([^"]+)"', text)
    assert found is not None
    return Image.open(io.BytesIO(base64.b64decode(found[1])))


def test_how_far_a_run_is_is_seen_while_it_goes_on(book: Notebook):
    shares = [float(share) for text in book.seen[0] for share in re.findall(r'value="([\d.]+)"', text)]
    assert len(shares) >= 3
    assert shares == sorted(shares)
    assert 0 <= shares[0] < shares[-1] <= 1
    assert "left" in book.seen[0][0]
    assert len(book.outputs[0]) == 1  # all in one place
    last = book.html(0)
    assert "mlp:8 on digits: ran for 2.5 seconds" in last
    assert "<progress" not in last
    assert "accuracy 0.9" in last
    assert "<polyline" in last


def test_a_run_shows_itself(book: Notebook):
    text = book.html(1)
    assert "Ran for 2.5 seconds." in text
    assert "held-out part" in text
    assert picture(text).width > 600


def test_a_figure_is_seen_without_pyplot(book: Notebook):
    assert any("image/png" in output.get("data", {}) for output in book.outputs[2])


def test_a_comparison_is_seen_under_way_and_then_shows_itself(book: Notebook):
    stages = [stage for text in book.seen[3] for stage in re.findall(r"<span>comparison: (\w+)", text)]
    assert set(stages) >= {"tuning", "measuring", "finished"}
    assert "every 8</th>" in book.html(3)
    assert "whole data set</th>" in book.html(3)
    assert picture(book.html(3)).width > 600


def test_what_is_short_or_told_to_somebody_shows_nothing(book: Notebook):
    assert book.html(4) == ""
    assert book.html(5) == ""
    assert book.html(7) == ""


def test_a_verification_shows_itself(book: Notebook):
    assert "the update is the mean of per-example gradients" in book.html(6)
    assert "does not hold" not in book.html(6)


def test_elsewhere_nothing_is_shown():
    assert in_place() is None


def test_every_text_is_escaped():
    rng = np.random.default_rng(0)
    names = np.array(["<b>a</b>", "<script>"])[rng.integers(0, 2, 40)]
    run = bb.fit(bb.linear(), (rng.normal(size=(40, 3)).astype(np.float32), names), duration="2 epochs")
    run.reason = "<i>over</i>"
    assert "&lt;i&gt;over&lt;/i&gt;" in run._repr_html_()
    assert "<i>" not in run._repr_html_()
    assert "<img" not in shown("<img src=x>", 0.5, ["<b>"])
    assert html.escape("<b>") in shown("x", 0.5, ["<b>"])


def test_the_table_of_a_run_has_its_newest_scores():
    run = bb.fit(bb.mlp(hidden=(8,)), "digits", duration="3 epochs")
    table = dict(re.findall(r'<th scope="row">([^<]+)</th><td>([\d.]+)</td>', run._repr_html_()))
    assert float(table["held-out part"]) == pytest.approx(run.history["held_out_loss_mean"][-1], rel=1e-3)
    assert float(table["training part"]) == pytest.approx(run.history["train_loss_mean"][-1], rel=1e-3)


def test_the_time_left_of_a_resumed_run_is_that_of_its_own_speed(monkeypatch: pytest.MonkeyPatch):
    now = iter(np.arange(0.0, 100.0, 1.0))
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    seen: list[str] = []
    consumer = RunShown(Durations.parse("100 epochs"), seen.append)
    consumer(Started({"model": "linear", "data": {"name": "iris"}}, 15, (32,), 0.1, resumed=True))
    consumer(Evaluated(Clock(2000, 6000, 50.0, 1000.0), {"loss": 1.0}, {}, 0.1))
    clock = Clock(2400, 7200, 60.0, 1010.0)
    consumer(StretchDone(clock, 10.0, 20.0, 1.0, np.ones(1), np.ones(1), 0.1))
    assert "60 %" in seen[-1]
    assert "about 40 s left" in seen[-1]
    consumer(Finished(clock, "interrupted", None, None))
    assert "linear on iris: interrupted" in seen[-1]
    assert "<progress" not in seen[-1]
