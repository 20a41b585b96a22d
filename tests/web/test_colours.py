"""What the pages look like can be read: contrast of text, and colours of lines that colour-blind people tell apart."""

import re
from importlib import resources
from itertools import combinations

import numpy as np
import pytest

from backbeat.report.style import COLOURS

CSS = resources.files("backbeat").joinpath("web", "static", "backbeat.css").read_text(encoding="utf-8")
THEMES = {"light": ":root {", "dark": ':root[data-theme="dark"] {'}
ON = ("paper", "card")
CADENCES = [f"cadence-{k}" for k in range(8)]

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
SEEN_BY = {
    "all": np.eye(3),
    "protanopia": np.array([
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998],
    ]),
    "deuteranopia": np.array([
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881],
    ]),
}  # fmt: skip


def variables(theme: str) -> dict[str, np.ndarray]:
    """Returns the colours of a theme as linear RGB."""
    block = CSS[CSS.index(THEMES[theme]) :]
    block = block[: block.index("}")]
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    return {name: linear(value) for name, value in found.items()}


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    """WCAG 2: (L + 0.05) / (l + 0.05) of the relative luminances."""
    bright, dark = sorted((float(c @ [0.2126, 0.7152, 0.0722]) for c in (one, other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def lab(colour: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = to_xyz @ np.clip(colour, 0, 1) / [0.9505, 1, 1.089]
    f = [v ** (1 / 3) if v > (6 / 29) ** 3 else v / (3 * (6 / 29) ** 2) + 4 / 29 for v in (x, y, z)]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_the_formulas_are_right():
    assert contrast(linear("#000000"), linear("#ffffff")) == pytest.approx(21)
    np.testing.assert_allclose(lab(linear("#ff0000")), [53.24, 80.09, 67.20], atol=0.1)


@pytest.mark.parametrize("theme", THEMES)
def test_text_has_enough_contrast(theme: str):
    colours = variables(theme)
    for text in ("ink", "muted", "accent", "warn", "good"):
        for ground in ON:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["accent"], colours["accent-soft"]) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
def test_lines_stand_out_from_the_card(theme: str):
    colours = variables(theme)
    assert min(contrast(colours[name], colours["card"]) for name in CADENCES) >= 3  # WCAG 2, 1.4.11: what is not text


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("who", SEEN_BY)
def test_lines_differ_for_everybody(theme: str, who: str):
    colours = variables(theme)
    seen = {name: lab(SEEN_BY[who] @ colours[name]) for name in CADENCES}
    near = {pair: float(np.linalg.norm(seen[pair[0]] - seen[pair[1]])) for pair in combinations(CADENCES, 2)}
    assert min(near.values()) >= 12, min(near.items(), key=lambda each: each[1])  # 2 can just be told apart


def test_pictures_have_the_same_colours():
    wanted = re.findall(r"--cadence-\d: (#[0-9a-f]{6});", CSS)[:8]
    assert [colour.lower() for colour in COLOURS] == wanted


def test_both_dark_blocks_are_the_same():
    inside = CSS[CSS.index("@media (prefers-color-scheme: dark)") :]
    inside = inside[inside.index(':root:not([data-theme="light"]) {') :]
    chosen = CSS[CSS.index(THEMES["dark"]) :]
    values = [re.findall(r"--[\w-]+: [^;]+;", block[: block.index("}")]) for block in (inside, chosen)]
    assert values[0] == values[1]


def test_nothing_moves_for_who_asks_for_that():
    assert "@media (prefers-reduced-motion: reduce) { * { transition: none !important; } }" in CSS
    assert "animation" not in CSS
