"""Seconds per update over the batch size on this machine, t(M) = α + β M: measured, fitted, and what is beside a line.

All sizes are timed in turn, round after round, on full batches and without evaluation, so that a slow moment of the
machine hits all alike. α is what an update costs however few examples it has, β what each example adds. The fit is a
least squares of relative errors, Σ ((α + β M)/t − 1)² with α, β ≥ 0, over sizes that are well apart; its intervals come
from resampling the rounds, and the sizes too where there are four or more, so that what a line does not describe makes
them wide. Where a size was measured the median of its rounds is given, not the fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..compare.critical import Interval
from ..errors import SettingsError
from ..report.style import count, duration
from .knees import SMALLEST, Knee, Neighbours, knees, neighbours

_RESAMPLES = 300
_APART = 1.2  # sizes nearer than this factor are one point to the fit
_DRIFTED = 0.1  # a change of speed by more than this is said
_POOR = 0.2  # a residual above which the line is called a poor description


@dataclass(frozen=True)
class Point:
    """Seconds per update of one batch size over the rounds."""

    batch_size: int
    median: float
    low: float
    high: float
    n_rounds: int


@dataclass(frozen=True)
class Session:
    """Batch sizes timed in the same rounds.

    Attributes:
        seconds: batch size -> seconds per update of each round, as seen.
        drift: how many times as slow as in the first session the machine was; its figures are divided by it.
    """

    seconds: Mapping[int, tuple[float, ...]]
    drift: float = 1.0


@dataclass(frozen=True)
class HardwareCurve:
    """Seconds per update over the batch size, as measured.

    Attributes:
        sessions: the rounds.
        left_out: batch sizes that were asked for and not measured, for lack of time.
        blocks: batch size -> examples computed at once, of the sizes that are computed in blocks.

    Example:
        >>> curve = HardwareCurve.of({m: [1e-6 * (10 + m)] * 3 for m in (1, 8, 64, 512)})
        >>> round(curve.alpha.value * 1e6, 6), round(curve.beta.value * 1e6, 6), curve.residual < 1e-12
        (10.0, 1.0, True)
        >>> f"{curve.seconds(1024) * 1e6:.0f} µs", curve.how(1024), curve.how(100), curve.how(64)
        ('1034 µs', 'extrapolated', 'interpolated', 'measured')
    """

    sessions: tuple[Session, ...]
    left_out: tuple[int, ...] = ()
    blocks: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, rounds: Mapping[int, Any]) -> HardwareCurve:
        """Returns the curve of batch size -> seconds per update of each round, all of the same rounds.

        Raises:
            SettingsError: fewer than two sizes.
        """
        if len(rounds) < 2:
            raise SettingsError(f"a hardware curve of {len(rounds)} batch size cannot be fitted; give two or more.")
        return cls((Session({m: tuple(map(float, rounds[m])) for m in sorted(rounds)}),))

    @cached_property
    def rounds(self) -> dict[int, np.ndarray]:
        """Seconds per update of each round of each batch size, at the speed of the first session."""
        sizes = sorted({m for session in self.sessions for m in session.seconds})
        return {m: np.concatenate([_at_first_speed(s, m) for s in self.sessions if m in s.seconds]) for m in sizes}

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """Median and range of each batch size, from the smallest on."""
        return tuple(
            Point(m, float(np.median(t)), float(t.min()), float(t.max()), len(t)) for m, t in self.rounds.items()
        )

    @cached_property
    def _medians(self) -> np.ndarray:
        return np.array([point.median for point in self.points])

    @cached_property
    def _sizes(self) -> np.ndarray:
        return np.array([point.batch_size for point in self.points], float)

    @cached_property
    def _skeleton(self) -> np.ndarray:
        """Places of the sizes that are well apart, so that neighbours do not count one place several times."""
        sizes = [point.batch_size for point in self.points]
        middles = {m for m in sizes if m >= SMALLEST and {m - 1, m + 1} <= set(sizes)}
        beside = {m + d for m in middles for d in (-1, 1)} - middles - {sizes[0], sizes[-1]}
        kept: list[int] = []
        for place, m in enumerate(sizes):
            if m not in beside and (not kept or m >= _APART * sizes[kept[-1]]):
                kept.append(place)
        if kept[-1] != len(sizes) - 1:  # the largest always counts
            kept = [*(kept if len(kept) == 1 else kept[:-1]), len(sizes) - 1]
        return np.array(kept)

    @cached_property
    def _resampled(self) -> np.ndarray:
        """`[resamples, sizes]`: medians with the rounds of each session resampled, the same for all its sizes."""
        rng = np.random.default_rng(0)
        made = np.empty((_RESAMPLES, len(self.points)))
        lengths = [len(next(iter(session.seconds.values()))) for session in self.sessions]
        for turn in range(_RESAMPLES):
            picks = [rng.integers(0, n, n) for n in lengths]
            for place, point in enumerate(self.points):
                of = [
                    _at_first_speed(session, point.batch_size)[pick]
                    for session, pick in zip(self.sessions, picks, strict=True)
                    if point.batch_size in session.seconds
                ]
                made[turn, place] = np.median(np.concatenate(of))
        return made

    @cached_property
    def _fit(self) -> tuple[Interval, Interval, float]:
        sizes, medians = self._sizes[self._skeleton], self._medians[self._skeleton]
        best = _line(sizes, medians)
        rng, again = np.random.default_rng(1), []
        for resample in self._resampled[:, self._skeleton]:
            chosen = np.arange(len(sizes))
            if len(sizes) >= 4:  # of fewer, too many resamples hold one size only
                chosen = np.unique(rng.integers(0, len(sizes), len(sizes)))
            if len(chosen) >= 2:
                again.append(_line(sizes[chosen], resample[chosen]))
        low, high = np.percentile(again, [2.5, 97.5], axis=0)
        alpha, beta = (
            Interval(v, float(min(v, lower)), float(max(v, upper)))
            for v, lower, upper in zip(best, low, high, strict=True)
        )
        residual = float(np.sqrt(np.mean(np.log(medians / (best[0] + best[1] * sizes)) ** 2)))
        return alpha, beta, residual

    @property
    def alpha(self) -> Interval:
        """Seconds of an update however few examples it has."""
        return self._fit[0]

    @property
    def beta(self) -> Interval:
        """Seconds that each example adds."""
        return self._fit[1]

    @property
    def residual(self) -> float:
        """Root mean square of log(seen / fitted): 0.1 is about 10 %."""
        return self._fit[2]

    @cached_property
    def knees(self) -> tuple[Knee, ...]:
        """Where a further example begins to cost clearly more, or less, than before."""
        kept = self._skeleton
        return knees(self._sizes[kept], self._medians[kept], self._resampled[:, kept])

    def how(self, batch_size: float) -> str:
        """Returns where `seconds` has its figure from: "measured", "interpolated" or "extrapolated"."""
        if batch_size in self.rounds:
            return "measured"
        inside = self._sizes[0] < batch_size < self._sizes[-1]
        return "interpolated" if inside else "extrapolated"

    def seconds(self, batch_size: float) -> float:
        """Returns t(M): measured where it was, else α + β M times how far the sizes on both sides lie off that line.

        Beyond the sizes measured it is the line's shape from the last of them on.

        Args:
            batch_size: M, 1 or more.

        Raises:
            SettingsError: less than 1.
        """
        if not batch_size >= 1:
            raise SettingsError(f"batch_size={batch_size!r} must be 1 or more.")
        alpha, beta = self.alpha.value, self.beta.value
        off = np.log(self._medians / (alpha + beta * self._sizes))
        return float((alpha + beta * batch_size) * np.exp(np.interp(np.log(batch_size), np.log(self._sizes), off)))

    def grain(self, candidates: Iterable[int] | None = None) -> tuple[Neighbours, ...]:
        """Returns what the sizes beside some batch sizes cost, from the rounds that timed them together.

        Args:
            candidates: which; None for all from 8 on whose M − 1 and M + 1 were timed in the same rounds.

        Raises:
            SettingsError: a candidate whose neighbours were not measured with it.
        """
        able = [m for m in self.rounds if m >= SMALLEST and any(_beside(m) <= set(s.seconds) for s in self.sessions)]
        wanted = able if candidates is None else list(candidates)
        if missing := [m for m in wanted if m not in able]:
            raise SettingsError(
                f"the neighbours of {missing[0]} were not measured with it; measure {missing[0] - 1}, {missing[0]} and "
                f"{missing[0] + 1} (8 or more) in the same rounds."
            )
        return tuple(neighbours(m, self._together(m)) for m in wanted)

    def _together(self, m: int) -> dict[int, np.ndarray]:
        """Returns the rounds in which M and its neighbours were timed, of all sizes that were timed in all of them."""
        sessions = [session for session in self.sessions if _beside(m) <= set(session.seconds)]
        shared = sorted(set.intersection(*(set(session.seconds) for session in sessions)))
        return {size: np.concatenate([_at_first_speed(s, size) for s in sessions]) for size in shared}

    @property
    def sentences(self) -> list[str]:
        """What was measured, and what it means, in words."""
        return [*_fit_words(self), *_knee_words(self), *[each.sentence for each in self.grain()], *_rest_words(self)]

    def record(self) -> dict[str, Any]:
        """Returns the curve as plain numbers and text, for a file."""
        return {
            "points": [
                {
                    "batch_size": p.batch_size, "median": p.median, "low": p.low, "high": p.high,
                    "n_rounds": p.n_rounds, "block": self.blocks.get(p.batch_size, p.batch_size),
                }
                for p in self.points
            ],
            "alpha": vars(self.alpha),
            "beta": vars(self.beta),
            "residual": self.residual,
            "knees": [
                {"batch_size": k.batch_size, "before": k.before, "after": k.after, "kind": k.kind} for k in self.knees
            ],
            "neighbours": [each.record() for each in self.grain()],
            "not_measured": list(self.left_out),
            "drift": [session.drift for session in self.sessions[1:]],
            "sentences": self.sentences,
        }  # fmt: skip


def _beside(m: int) -> set[int]:
    return {m - 1, m, m + 1}


def _at_first_speed(session: Session, m: int) -> np.ndarray:
    return np.array(session.seconds[m]) / session.drift


def _line(sizes: np.ndarray, seconds: np.ndarray) -> tuple[float, float]:
    """Returns (α, β), neither below 0, with the least squares of relative errors."""
    from scipy.optimize import nnls

    scale = seconds[-1], seconds[-1] / sizes[-1]  # so that both unknowns are about 1
    rows = np.stack([scale[0] / seconds, scale[1] * sizes / seconds], axis=1)
    found = nnls(rows, np.ones(len(sizes)))[0]
    return float(found[0] * scale[0]), float(found[1] * scale[1])


def _fit_words(curve: HardwareCurve) -> list[str]:
    a, b = curve.alpha, curve.beta
    first, last = curve.points[0], curve.points[-1]
    rounds = min(p.n_rounds for p in curve.points)
    words = [
        f"An update takes {duration(a.value)} and {duration(b.value)} for each example (95 %: {duration(a.low)} to "
        f"{duration(a.high)}, {duration(b.low)} to {duration(b.high)}), as fitted to {len(curve.points)} batch sizes "
        f"from {count(first.batch_size)} to {count(last.batch_size)} in {rounds} rounds; "
        + (
            f"the fit is {100 * math.expm1(curve.residual):.0f} % off in the root mean square."
            if len(curve.points) > 2
            else "two sizes do not tell whether it is a line."
        )
    ]
    if curve.residual > _POOR:
        words.append("A line describes this machine poorly: go by the sizes measured, not by the fit.")
    if a.value and b.value:
        words.append(
            f"Up to about {count(max(1, round(a.value / b.value)))} examples an update costs at most twice its least."
        )
    return words


def _knee_words(curve: HardwareCurve) -> list[str]:
    words = [
        f"From {count(k.batch_size)} on each further example costs {duration(max(k.after, 0.0))}, before it "
        f"{duration(max(k.before, 0.0))}."
        for k in curve.knees
    ]
    if curve.blocks:
        m = min(curve.blocks)
        words.append(
            f"From {count(m)} on a batch is computed in blocks of at most {count(max(curve.blocks.values()))}."
        )
    return words


def _rest_words(curve: HardwareCurve) -> list[str]:
    words = []
    for session in curve.sessions[1:]:
        if abs(math.log(session.drift)) > _DRIFTED:
            sizes = ", ".join(count(m) for m in session.seconds)
            words.append(
                f"The machine drifted: when {sizes} were timed it took {session.drift:.2f} times as long as at first; "
                "their figures are divided by that."
            )
    if curve.left_out:
        words.append(f"Not measured, for lack of time: {', '.join(count(m) for m in curve.left_out)}.")
    return words
