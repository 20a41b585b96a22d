"""What the times of an update show beside a line: knees over M, and whether M − 1 and M + 1 cost more than M.

An update of a straight curve costs β for each further example, wherever it is looked at. A **knee** is a batch size at
which this local slope changes by more than a factor 1.5 beyond what the rounds explain. **Neighbours**: kernels work in
tiles, so a multiple of the tile may be cheaper than what lies beside it. Per example M − 1 and M + 1 together cost what
M costs on any smooth curve, up to 1/M² of it; what they cost more is the tile's doing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..measure import Spread

SMALLEST = 8  # below, M ± 1 is another size by more than an eighth, not a neighbour
_CLEARLY = 1.5  # a change of slope by less is called none
_MATTERS = 0.05  # of the seconds per example
_RESAMPLES = 400


@dataclass(frozen=True)
class Knee:
    """A batch size at which a further example begins to cost more, or less, than before.

    Attributes:
        batch_size: M.
        before: seconds for each further example below it.
        after: seconds for each further example above it.
    """

    batch_size: int
    before: float
    after: float

    @property
    def kind(self) -> str:
        """Returns "dearer" or "cheaper"."""
        return "dearer" if self.after > self.before else "cheaper"


def knees(sizes: np.ndarray, medians: np.ndarray, resampled: np.ndarray) -> tuple[Knee, ...]:
    """Returns where the local slope clearly changes.

    Args:
        sizes: `[sizes]`, rising, well apart: differences of near ones are all noise.
        medians: `[sizes]`, seconds per update.
        resampled: `[resamples, sizes]`, the same with the rounds resampled.

    Example:
        >>> sizes = np.array([1.0, 4, 16, 64, 256])
        >>> seconds = np.maximum(10, sizes)
        >>> knees(sizes, seconds, np.stack([seconds, seconds]))
        (Knee(batch_size=4, before=0.0, after=0.5), Knee(batch_size=16, before=0.5, after=1.0))
    """
    if len(sizes) < 3:
        return ()
    slope = np.diff(medians) / np.diff(sizes)
    low, high = np.percentile(np.diff(resampled, axis=1) / np.diff(sizes), [2.5, 97.5], axis=0)
    dearer = low[1:] > _CLEARLY * np.maximum(high[:-1], 0)
    cheaper = _CLEARLY * np.maximum(high[1:], 0) < low[:-1]
    places = np.flatnonzero(dearer | cheaper)
    return tuple(Knee(int(sizes[i + 1]), float(slope[i]), float(slope[i + 1])) for i in places)


@dataclass(frozen=True)
class Neighbours:
    """Seconds per example beside a batch size, as multiples of its own, from the same rounds.

    Attributes:
        batch_size: M.
        ratios: other batch size -> median and range over the rounds of (its seconds per example) / (those of M).
        beside: the same of M − 1 and M + 1 together, the mean of both.
        sure: the 95 % interval of its median.
        above: the same of 1.25 M, as a multiple of what a line between M and the next size says; None: not measured.
        n_rounds: from how many rounds.
    """

    batch_size: int
    ratios: dict[int, Spread]
    beside: Spread
    sure: tuple[float, float]
    above: Spread | None
    n_rounds: int

    @property
    def verdict(self) -> str:
        """Returns "even": M costs what its neighbours cost; "better", "worse": less, more; or "not clear"."""
        low, high = self.sure
        if self.n_rounds < 3:
            return "not clear"
        if low > 1 and self.beside.median >= 1 + _MATTERS:
            return "better"
        if high < 1 and self.beside.median <= 1 - _MATTERS:
            return "worse"
        return "even" if low > 1 - 2 * _MATTERS and high < 1 + 2 * _MATTERS else "not clear"

    @property
    def sentence(self) -> str:
        """Returns what was seen, and what it means."""
        m, low, high = self.batch_size, self.beside.low, self.beside.high
        seen = (
            f"{m - 1:,} and {m + 1:,} take {low:.2f} to {high:.2f} times as long per example as {m:,} "
            f"(median {self.beside.median:.2f}, {self.n_rounds} rounds)"
        )
        return f"{seen}: {self._meaning()}."

    def _meaning(self) -> str:
        m = self.batch_size
        power, tile = m & (m - 1) == 0, next((tile for tile in (16, 8) if m % tile == 0), None)
        kinds = [*(["powers of two"] if power else []), *([f"multiples of {tile}"] if tile else [])]
        if self.verdict == "not clear":
            return "the rounds differ too much to tell"
        if self.verdict == "worse":
            return f"{m:,} is slower than the sizes beside it"
        if self.verdict == "even":
            return f"{' and '.join(kinds)} do not matter here" if kinds else f"{m:,} is no better than its neighbours"
        above = round(1.25 * m)
        if len(kinds) < 2 or self.above is None or (above % (tile or 1)):
            return f"{' or '.join(kinds)} matter here" if kinds else f"{m:,} is better than its neighbours"
        figure = f"1.25 times as large, {above:,} takes {self.above.median:.2f} of what a line through both sides says"
        if self.above.median < 1 + _MATTERS:
            return f"multiples of {tile} matter here, powers of two as such do not ({figure})"
        return f"powers of two matter here ({figure})"

    def record(self) -> dict:
        """Returns the figures by name."""
        ratios = [{"batch_size": m, **_plain(spread)} for m, spread in self.ratios.items()]
        return {
            "batch_size": self.batch_size, "ratios": ratios, "beside": _plain(self.beside),
            "above": None if self.above is None else _plain(self.above), "verdict": self.verdict,
            "n_rounds": self.n_rounds,
        }  # fmt: skip


def _plain(spread: Spread) -> dict[str, float]:
    return {"median": spread.median, "low": spread.low, "high": spread.high}


def with_neighbours(candidates: list[int], n_train: int) -> list[int]:
    """Returns candidates with the sizes beside them that tell whether they are special: M − 1, M + 1 and 1.25 M.

    Args:
        candidates: batch sizes; those below 8 get none.
        n_train: |D|; sizes above it are left out.

    Example:
        >>> with_neighbours([4, 32], 1000)
        [4, 31, 32, 33, 40]
    """
    sizes = set(candidates)
    for m in candidates:
        sizes |= {m - 1, m + 1, round(1.25 * m)} if m >= SMALLEST else set()
    return sorted(size for size in sizes if size <= n_train)


def neighbours(m: int, rounds: dict[int, np.ndarray], seed: int = 0) -> Neighbours:
    """Returns what the sizes beside M cost per example.

    Args:
        m: M.
        rounds: batch size -> seconds per update of each round, all of the same rounds; M − 1, M and M + 1 are among
            them.
        seed: of the interval, by resampling the rounds.

    Example:
        >>> same = np.ones(5)
        >>> neighbours(32, {31: 31 * same, 32: 32 * same, 33: 33 * same}).beside
        Spread(median=1.0, low=1.0, high=1.0)
    """
    each = {size: seconds / size for size, seconds in rounds.items()}
    above = round(1.25 * m)
    others = [size for size in (m - 1, m + 1, above) if size in each]
    ratios = {size: Spread.of(each[size] / each[m]) for size in others}
    beside = (each[m - 1] + each[m + 1]) / 2 / each[m]
    picks = np.random.default_rng(seed).integers(0, len(beside), (_RESAMPLES, len(beside)))
    low, high = np.percentile(np.median(beside[picks], axis=1), [2.5, 97.5])
    beyond = min((size for size in rounds if size > above), default=None)
    line = None
    if above in rounds and beyond is not None:
        line = rounds[m] + (rounds[beyond] - rounds[m]) * ((above - m) / (beyond - m))
    against = None if line is None else Spread.of(rounds[above] / line)
    return Neighbours(m, ratios, Spread.of(beside), (float(low), float(high)), against, len(beside))
