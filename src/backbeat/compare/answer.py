"""The answer in words: which cadence came first on each clock, by how much, and where that is not clear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..measure import Spread
from .critical import CriticalFit
from .result import CadenceResult

_WORDS = {
    "examples": ("the fewest examples", "fewer"),
    "updates": ("the fewest updates", "fewer"),
    "seconds": ("the least time", "less"),
}


def named(cadence: CadenceResult) -> str:
    """Returns a cadence in words: "each example", "32 examples", "the whole data set"."""
    if cadence.batch_size == cadence.n_examples:
        return "the whole data set"
    words = "each example" if cadence.batch_size == 1 else f"{cadence.batch_size:,} examples"
    return words if cadence.every.isdigit() else f"{words} ({cadence.every})"


def amount(value: float, clock: str) -> str:
    """Returns an amount with its unit, in three figures: "4,310 examples", "6.1 ms".

    Example:
        >>> amount(0.00613, "seconds"), amount(4310.0, "examples")
        ('6.13 ms', '4,310 examples')
    """
    if clock != "seconds":
        return f"{round(value):,} {clock if round(value) != 1 else clock[:-1]}"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}" if value / scale < 1000 else f"{value / scale:,.0f} {unit}"
    return f"{value * 1e9:.3g} ns"


def listed(names: Sequence[str]) -> str:
    """Returns names as a sentence has them.

    Example:
        >>> listed(["a", "b", "c"])
        'a, b and c'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def ranged(spread: Spread, clock: str) -> str:
    """Returns the range over the seeds: "939 to 1,890", "1.6 ms to 3.4 ms"."""
    low, high = amount(spread.low, clock), amount(spread.high, clock)
    return f"{low if clock == 'seconds' else low.split()[0]} to {high if clock == 'seconds' else high.split()[0]}"


def in_all(cadence: CadenceResult) -> str:
    """Returns what a cadence took to the target on all three clocks, with ranges."""
    spreads = [(clock, cadence.to_target(clock)) for clock in ("seconds", "examples", "updates")]
    return listed([f"{amount(s.median, clock)} ({ranged(s, clock)})" for clock, s in spreads if s is not None])


def n_first(cadence: CadenceResult, others: Sequence[CadenceResult], clock: str) -> int:
    """Returns with how many seeds a cadence was first: all start from the same weights and split with one seed."""
    least = [min(getattr(run.reached, clock) for run in runs) for runs in zip(*(c.runs for c in others), strict=True)]
    return sum(getattr(run.reached, clock) == best for run, best in zip(cadence.runs, least, strict=True))


def first_on(cadences: Sequence[CadenceResult], clock: str) -> str:
    """Returns the sentence on which cadence reached the target first on one clock; all of them reached it."""
    ranked: list[tuple[CadenceResult, Spread]] = []
    for cadence in cadences:
        spread = cadence.to_target(clock)
        assert spread is not None
        ranked.append((cadence, spread))
    ranked.sort(key=lambda pair: pair[1].median)
    best, spread = ranked[0]
    seen = f"{amount(spread.median, clock)} ({ranged(spread, clock)})"
    level = [pair for pair in ranked[1:] if pair[1].overlaps(spread)]
    if level:
        others = listed([f"after {named(c)} ({amount(s.median, clock)})" for c, s in level])
        return (
            f"No clear winner on {clock}: updating after {named(best)} took {seen} and was first with "
            f"{n_first(best, cadences, clock)} of {len(best.runs)} seeds, but its range overlaps with that of updating "
            f"{others}."
        )
    (second, behind), (most, less) = ranked[1], _WORDS[clock]
    return (
        f"Updating after {named(best)} took {most}: {seen}, {behind.median / spread.median:.2g} times {less} than "
        f"after {named(second)} ({amount(behind.median, clock)})."
    )


def answer(
    cadences: Sequence[CadenceResult], target: str | None, fit: CriticalFit | None, equal: dict[str, Any]
) -> list[str]:
    """Returns the answer, a sentence each.

    Args:
        cadences: what was measured.
        target: as text, None where there was none.
        fit: of updates against batch size, None where there are too few points.
        equal: what `at_equal` gives.
    """
    if target is None:
        return at_equal_budgets(cadences, equal)
    reached = [c for c in cadences if c.reached_share == 1]
    if not reached:
        seen = [(c.final_score.median, c) for c in cadences if c.final_score]
        if not seen:
            return [f"No cadence reached {target}, and every run diverged; try smaller learning rates."]
        more = ">=" in target
        value, best = sorted(seen, key=lambda pair: -pair[0] if more else pair[0])[0]
        return [
            f"No cadence reached {target} on every seed in the time given; "
            f"updating after {named(best)} came nearest, at {value:.4g}.",
            *at_equal_budgets(cadences, equal),
        ]
    if len(reached) > 1:
        sentences = [first_on(reached, clock) for clock in ("seconds", "examples", "updates")]
    else:
        only, every_seed = ("Only updating", " on every seed:") if len(cadences) > 1 else ("Updating", "")
        sentences = [f"{only} after {named(reached[0])} reached {target}{every_seed} in {in_all(reached[0])}."]
    for cadence in cadences:
        if cadence.reached_share < 1:
            share = f"{sum(r.reached is not None for r in cadence.runs)} of {len(cadence.runs)} runs"
            sentences.append(f"Updating after {named(cadence)} reached the target in {share} within the time given.")
    if fit is not None:
        sentences.append(about_fit(fit))
    return [*sentences, f"The target is {target}, with the learning rate tuned for each cadence."]


def about_fit(fit: CriticalFit) -> str:
    """Returns the sentence on the critical batch size, or that it is not known from these runs."""
    if not fit.known:
        return (
            "The critical batch size is not known from these runs: "
            "the fit of updates = S_min (1 + B_crit / M) is too uncertain."
        )
    return (
        "The critical batch size, where examples and updates are both twice their least (B_crit of McCandlish et al. "
        f"2018), is about {fit.b_crit:,.3g} (95 % interval {fit.b_crit_low:,.3g} to {fit.b_crit_high:,.3g})."
    )


def at_equal_budgets(cadences: Sequence[CadenceResult], equal: dict[str, Any]) -> list[str]:
    """Returns the answer where there is no target that was reached: the lowest training loss on each clock."""
    return [best_at(cadences, equal, clock) for clock in ("seconds", "examples", "updates")]


def best_at(cadences: Sequence[CadenceResult], equal: dict[str, Any], clock: str) -> str:
    """Returns the sentence on the lowest training loss after the same examples, updates or seconds."""
    rows = [
        (row["train_loss_mean"], c)
        for row, c in zip(equal[clock]["rows"], cadences, strict=True)
        if row["train_loss_mean"]
    ]
    at = amount(equal[clock]["at"], clock)
    if not rows:
        return f"After {at} no cadence had a finite loss on every seed."
    rows.sort(key=lambda pair: pair[0]["median"])
    best, cadence = rows[0]
    level = [c for other, c in rows[1:] if other["low"] <= best["high"]]
    seen = f"{best['median']:.3g} (from {best['low']:.3g} to {best['high']:.3g})"
    if level:
        others = listed([f"after {named(c)}" for c in level])
        return (
            f"After {at} there is no clear winner: updating after {named(cadence)} has a training loss of {seen}, "
            f"in one range with {others}."
        )
    return f"After {at}, updating after {named(cadence)} has the lowest training loss, {seen}."
