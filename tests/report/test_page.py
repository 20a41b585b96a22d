"""The document holds all that it shows, loads nothing, and lets nothing in the record become markup."""

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from backbeat.errors import DataError, SettingsError
from backbeat.report import page, write_page
from backbeat.report.page import MOST_ROWS

NASTY = "</script><b>&amp;\u2028'\"<!--{{record}}"


class Elements(HTMLParser):
    """Collects every element with its attributes, and the text of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": [], "title": []}
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag
        if tag in self.texts:
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside in self.texts:
            self.texts[self.inside][-1] += data


def parsed(document: str) -> Elements:
    elements = Elements()
    elements.feed(document)
    return elements


def embedded(document: str) -> dict:
    elements = parsed(document)
    scripts = [attributes for tag, attributes in elements.tags if tag == "script"]
    place = next(i for i, attributes in enumerate(scripts) if attributes.get("type") == "application/json")
    return json.loads(elements.texts["script"][place])


def comparisons(make) -> list[dict]:
    return [
        make(),
        make(("32",)),
        make(score="r2", troubles=False, fit=False),
        make(name=NASTY),
        make(("1", "2", "4", "8", "16", "32", "64", "128", "dataset"), n_points=20),
    ]


def test_the_record_comes_back_as_it_was(fake_comparison, fake_run, fake_advice):
    runs = [fake_run(), fake_run(repeats=True, score="r2", name=NASTY)]
    for record in [*comparisons(fake_comparison), *runs, fake_advice(name=NASTY), fake_advice(reached=False)]:
        assert embedded(page(record)) == record


def test_numbers_that_are_not_finite_become_null_and_arrays_become_lists(fake_run):
    record = fake_run(n_rows=3)
    record["history"]["loss_mean"] = np.array([np.nan, np.inf, 1.5], dtype=np.float32)
    record["finished"]["seconds"] = -math.inf
    document = page(record)
    assert embedded(document)["history"]["loss_mean"] == [None, None, 1.5]
    assert embedded(document)["finished"]["seconds"] is None
    assert not re.search(r"[:,\[](NaN|-?Infinity)", document.split('id="record">')[1].split("</script>")[0])


def test_a_name_never_becomes_markup(fake_comparison):
    plain, nasty = parsed(page(fake_comparison())), parsed(page(fake_comparison(name=NASTY)))
    assert [tag for tag, _ in nasty.tags] == [tag for tag, _ in plain.tags]
    assert NASTY in nasty.texts["title"][0]


def test_the_answer_is_readable_without_scripts_and_escaped(fake_comparison):
    record = fake_comparison()
    record["answer"] = ["Every 8 <i>wins</i>."]
    inside = page(record).split("<noscript>")[1].split("</noscript>")[0]
    assert "<p>Every 8 &lt;i&gt;wins&lt;/i&gt;.</p>" in inside


def test_advice_is_readable_without_scripts(fake_advice):
    record = fake_advice()
    document = page(record)
    inside = document.split("<noscript>")[1].split("</noscript>")[0]
    assert [f"<p>{sentence}</p>" in inside for sentence in [*record["answer"], record["next"]]] == [True] * 4
    assert parsed(document).texts["title"] == ["How often to update: mlp:32 on digits · backbeat"]


def test_nothing_is_loaded_from_elsewhere(fake_comparison, fake_run, fake_advice):
    for record in (fake_comparison(), fake_run(), fake_advice()):
        document = page(record)
        elements = parsed(document)
        for tag, attributes in elements.tags:
            assert not {"src", "href", "srcset", "action", "data"} & attributes.keys(), (tag, attributes)
            assert tag not in {"link", "img", "iframe", "object", "embed", "base"}
        code = "".join(elements.texts["script"] + elements.texts["style"])
        assert re.findall(r"https?:[^\s*]*", code) == ["https://github.com/leeoniya/uPlot"]  # its licence comment
        assert not re.search(r"url\(|@import|\bfetch\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|import\(", code)
        assert not re.search(r"""["'(=]//\w""", code)


def test_the_policy_names_exactly_the_scripts_and_styles_inside(fake_run):
    document = page(fake_run())
    elements = parsed(document)
    policy = next(a["content"] or "" for _, a in elements.tags if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))

    def hashes(texts: list[str]) -> str:
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(t.encode()).digest()).decode()}'" for t in texts)

    assert rules.pop("script-src") == hashes([text for text in elements.texts["script"] if not text.startswith("{")])
    assert rules.pop("style-src") == hashes(elements.texts["style"])
    expected = {"default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'"}
    assert rules == expected


def test_a_long_history_is_thinned_and_keeps_its_extremes(fake_run):
    record = fake_run(n_rows=100_000)
    history = record["history"]
    shown = embedded(page(record))
    kept = shown["history"]
    n_kept = len(kept["updates"])
    assert shown["thinned"] == {"rows": 100_000, "shown": n_kept}
    assert MOST_ROWS / 4 <= n_kept <= MOST_ROWS
    assert {len(values) for values in kept.values()} == {n_kept}
    assert [kept["updates"][0], kept["updates"][-1]] == [history["updates"][0], history["updates"][-1]]
    assert kept["updates"] == sorted(set(kept["updates"]))
    for least_or_most in (min, max):
        assert least_or_most(kept["loss_mean"]) == least_or_most(history["loss_mean"])
    assert sum(value is not None for value in kept["held_out_accuracy"]) >= 500
    rows = set(zip(history["updates"], history["loss_mean"], strict=True))
    assert set(zip(kept["updates"], kept["loss_mean"], strict=True)) <= rows


def test_a_long_history_without_evaluations_or_losses_is_thinned_too(fake_run):
    record = fake_run(n_rows=MOST_ROWS + 1)
    record["history"] = {"updates": record["history"]["updates"], "examples": record["history"]["examples"]}
    kept = embedded(page(record))["history"]["updates"]
    assert MOST_ROWS / 4 <= len(kept) < MOST_ROWS
    assert kept[-1] == record["history"]["updates"][-1]


def test_a_history_that_fits_is_left_alone(fake_run):
    assert "thinned" not in embedded(page(fake_run(n_rows=MOST_ROWS)))


def test_another_kind_of_record_is_refused():
    with pytest.raises(DataError, match="of kind comparison, advice or run, not of 'verification'"):
        page({"kind": "verification"})


def test_writing_leaves_nothing_else(tmp_path: Path, fake_run):
    path = write_page(fake_run(), tmp_path / "report.html")
    assert path.read_bytes() == page(fake_run()).encode()
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_failing_write_leaves_the_earlier_file(tmp_path: Path, fake_run, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "report.html"
    path.write_text("earlier")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(SettingsError, match="No space left on device"):
        write_page(fake_run(), path)
    assert path.read_text() == "earlier"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
