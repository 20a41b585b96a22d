"""The advice in words: what to set, what it takes and how sure that is, what was seen, what to measure next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..compare.answer import amount, listed
from ..compare.critical import CriticalFit, Interval
from ..report.style import duration
from .confirm import Confirmed
from .search import Sized
from .wishes import Wish

_WISHES = {
    "finish_first": "To finish first",
    "fewest_examples": "For the fewest examples",
    "fewest_updates": "For the fewest updates (the most devices)",
}


def after(m: int, n_train: int) -> str:
    """Returns when the weights change, in words.

    Example:
        >>> after(1, 100), after(32, 100), after(100, 100)
        ('each example', '32 examples', 'the whole data set (100 examples)')
    """
    if m == n_train:
        return f"the whole data set ({m:,} examples)"
    return "each example" if m == 1 else f"{m:,} examples"


def seconds_of(one: Interval) -> str:
    """Returns a time with its interval.

    Example:
        >>> seconds_of(Interval(0.02, 0.015, 0.03))
        '20 ms (15 ms to 30 ms)'
    """
    return f"{duration(one.value)} ({duration(one.low)} to {duration(one.high)})"


def about_wish(wish: Wish, n_train: int) -> str:
    """Returns the sentence of a wish."""
    level = listed([after(m, n_train) for m in sorted(wish.level)]) if wish.level else ""
    also = f" Within 10 % of it: {level}." if level else ""
    updates, examples = wish.updates, wish.examples
    return (
        f"{_WISHES[wish.name]}, update after {after(wish.batch_size, n_train)} with the learning rate "
        f"{wish.learning_rate:.3g}: about {updates.value:,.0f} updates ({updates.low:,.0f} to {updates.high:,.0f}), "
        f"{amount(examples.value, 'examples')}, {wish.epochs.value:.3g} epochs, {seconds_of(wish.seconds)}.{also}"
    )


def about_confirmed(confirmed: Sequence[Confirmed], n_train: int) -> list[str]:
    """Returns what real runs took beside what was predicted, a sentence for each setting."""
    sentences = []
    for one in confirmed:
        name = after(one.batch_size, n_train)
        if not one.updates:
            sentences.append(f"Updating after {name} was not confirmed, for lack of time.")
            continue
        if not one.reached:
            n = sum(u is not None for u in one.updates)
            sentences.append(
                f"Seen with updates after {name}: {n} of {len(one.updates)} runs on other seeds met the target in the "
                "time given; the prediction does not hold."
            )
            continue
        verdict = "as predicted" if one.agrees else "which disagrees with the prediction"
        sentences.append(
            f"Seen with updates after {name}, {len(one.updates)} runs on other seeds: {one.median_updates:,.0f} "
            f"updates (predicted {one.predicted_updates.value:,.0f}) in {duration(one.median_seconds)} (predicted "
            f"{duration(one.predicted_seconds.value)}), {verdict}."
        )
    return sentences


def about_critical(fit: CriticalFit | None) -> str:
    """Returns the sentence on the critical batch size, or that it is not known."""
    if fit is None or not fit.known:
        return (
            "The critical batch size is not known from these runs: the fit of updates = S_min (1 + B_crit / M) is too "
            "uncertain, or rests on fewer than three batch sizes."
        )
    return (
        f"The critical batch size, at which updates and examples are both twice their least (B_crit of McCandlish et "
        f"al. 2018), is about {fit.b_crit:,.3g} (95 % interval {fit.b_crit_low:,.3g} to {fit.b_crit_high:,.3g}), for "
        "this optimizer and target."
    )


def not_measured(sizes: Mapping[int, Sized], n_train: int) -> list[str]:
    """Returns a sentence for each size that gave no figure, with the reason."""
    sentences = []
    for m, size in sorted(sizes.items()):
        if size.why_not is not None:
            sentences.append(f"Updating after {after(m, n_train)} was not measured: {size.why_not}.")
        elif not size.reached:
            n = len(size.seen)
            sentences.append(
                f"Updating after {after(m, n_train)} met the target with {n} of {len(size.updates)} seeds in the time "
                "given, so it is left out."
            )
        elif size.on_edge:
            sentences.append(
                f"After {after(m, n_train)} the best learning rate, {size.learning_rate:.3g}, lies on the edge of "
                "those tried; this size is left out of the fit."
            )
    return sentences


def next_measurement(
    wishes: Mapping[str, Wish], fit: CriticalFit | None, confirmed: Sequence[Confirmed], sizes: Mapping[int, Sized]
) -> str | None:
    """Returns what to measure next where the advice is unsure, None where it is not."""
    if not wishes:
        return "Measure next: give it more time (--within), or a target that is easier to reach."
    off = [one for one in confirmed if one.updates and not one.agrees]
    if off:
        return (
            "Measure next: the same with twice the time (--within), since real runs at "
            f"{listed([str(one.batch_size) for one in off])} examples an update disagree with the prediction."
        )
    wide = [w for w in wishes.values() if w.seconds.high > 3 * w.seconds.low]
    if wide:
        return (
            f"Measure next: more seeds at {wide[0].batch_size} (a longer --within), since one run's seconds are known "
            f"only to a factor {math.sqrt(wide[0].seconds.high / wide[0].seconds.low):.2g}."
        )
    left_out = [m for m, size in sizes.items() if size.why_not is not None]
    if left_out:
        return f"Measure next: {listed([str(m) for m in sorted(left_out)])}, for which a longer --within leaves time."
    if fit is None or not fit.known:
        return "Measure next: with twice the time (--within), so that the critical batch size becomes known."
    return None
