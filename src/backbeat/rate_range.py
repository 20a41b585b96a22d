"""A learning-rate range test: a few updates with each of many rates, and the rate that they point to.

Every rate is tried from the run's own initial weights, on batches of the run's own size, for 8 updates or as many as
see 512 examples; then the loss of a fixed sample of the training part is measured. The loss of a batch, at which L. N.
Smith looked (Cyclical Learning Rates for Training Neural Networks, 2017, arXiv:1506.01186), says little where it is one
example; and rates that rise within one training, as his do, come too late where the loss falls early. The rate chosen
is a factor √2 below the greatest one with which the loss fell about as far as with any. The test leaves no trace: it
works on copies, takes its examples in orders of its own, and draws random numbers of its own. The whole rule
in words: docs/learning_rate.md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .advance import Engine
from .cadence import every
from .clock import Duration
from .config import Job, with_cadence
from .data import foreseen, reading_errors
from .errors import SettingsError
from .evaluate import block_for, evaluator, fetches
from .mesh import Team
from .nonfinite import NotFinite
from .schedule import Schedule
from .stretch import Data

FACTOR = 2**0.5  # from one rate to the next
REPEATS = 3
_FIRST, _FIRST_FACTOR, _N_FIRST = 1e-12, 4.0, 36  # the first look for where the loss rises: up to 1e9
_LEAST_UPDATES, _EXAMPLES, _MOST_UPDATES = 8, 512, 128  # with each rate: 8, or as many as see 512 examples, up to 128
_SAMPLE = 512
_LEAST, _HIGHEST = 1e-9, 1e10  # rates beyond which none is tried, unless the loss rises already there
_BELOW = 5  # rates tried below the best one
_NEAR = 0.02  # a share of the fall: a loss within it of the lowest counts as lowest too
_FALL = 1e-3  # the least share of the first loss that counts as having fallen
_RISEN = 3.0  # times the first loss, or what it fell by: where the first look has seen it rise
_ORDER, _KEPT = 0x72616E67, 2  # keeps the test's orders apart from the run's; digits of the rate chosen


@dataclass(frozen=True)
class RateRange:
    """What a range test found.

    Attributes:
        learning_rate: the γ chosen, to two digits.
        lowest: the greatest γ with which the loss was about the lowest.
        rises: the least γ above it with which the loss ended above the first one; None where there was none.
        first_loss: the sample's loss before the first update.
        rates: the rates tried, ascending.
        loss: the sample's loss after the updates with each, the median of the repeats; infinite where it diverged.
        low: the least of the repeats.
        high: the greatest.
        batch_size: M.
        updates_each: how many updates were made with each rate.
        repeats: how many times all of it was done.
        n_updates: all updates, the first look included.
        n_sample: how many examples the loss was measured on.
        seconds: what it took, compilation included.
    """

    learning_rate: float
    lowest: float
    rises: float | None
    first_loss: float
    rates: tuple[float, ...]
    loss: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    batch_size: int
    updates_each: int
    repeats: int
    n_updates: int
    n_sample: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Returns all of it, as a record keeps it."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def __str__(self) -> str:
        rise = "" if self.rises is None else f", and it rises with {self.rises:.2g}"
        return (
            f"learning rate {self.learning_rate:g} chosen by a range test: up to {self.lowest:.2g} the training loss "
            f"falls well, from {self.first_loss:.3g} to {min(self.loss):.3g} in {self.updates_each} updates{rise} "
            f"({self.n_updates:,} updates in all, apart from the run's own)"
        )


def with_rate(job: Job, data: Data | None = None, progress: Callable[[float], None] = lambda share: None) -> Job:
    """Returns the job with its learning rate: the same job, or one with the rate that a range test finds.

    Args:
        job: what is to be trained; `job.rate_asked` says whether a rate has still to be found.
        data: its data on the device, where it is there already.
        progress: is told the share of the test that is done.

    Raises:
        SettingsError: the loss fell at no rate.

    Example:
        >>> from backbeat.config import Settings, resolve
        >>> job = resolve("linear", "digits", Settings(learning_rate="auto", every=64))
        >>> found = with_rate(job)
        >>> job.rate_asked, found.rate_asked, 0.1 < found.learning_rate < 10
        (True, False, True)
    """
    if not job.rate_asked:
        return job
    with reading_errors():
        found = range_test(job, data, progress)
    return replace(job, learning_rate=job.team.agree(found.learning_rate), rate_range=found)


def range_test(job: Job, data: Data | None = None, progress: Callable[[float], None] = lambda share: None) -> RateRange:
    """Returns what a range test finds for a job, which it leaves as it is.

    Where the batch size changes along the run, the test takes the smallest: it bears the least rate. A watched norm or
    noise is not measured, and a schedule's factor is 1, its highest.

    Raises:
        SettingsError: the loss fell at no rate, or is not finite before the first update.

    Example:
        >>> from backbeat.config import Settings, resolve
        >>> found = range_test(resolve("linear", "digits", Settings(every="dataset")))
        >>> found.repeats, found.updates_each, found.lowest < found.rates[-1]
        (1, 8, True)
    """
    start = time.perf_counter()
    test = _Test(job, job.device_data() if data is None else data)
    first = test.loss(test.state.params)
    if not math.isfinite(first):
        raise SettingsError(
            f'learning_rate="auto": the loss is {first} before the first update, so no rate can be found; look for '
            "what is not finite in the loss, the weights to start from or the data."
        )
    rates, curves = _around(test, first, _where_it_rises(test, first), progress)
    middle = np.median(curves, axis=0)
    last = _last_lowest(middle, first)
    risen = last + np.flatnonzero(middle[last:] > first)
    return RateRange(
        float(f"{rates[last] / FACTOR:.{_KEPT}g}"), float(rates[last]),
        float(rates[risen[0]]) if len(risen) else None, first, tuple(rates.tolist()), tuple(middle.tolist()),
        tuple(curves.min(axis=0).tolist()), tuple(curves.max(axis=0).tolist()), test.size, test.n_each, test.repeats,
        test.n_updates, len(test.sample), time.perf_counter() - start,
    )  # fmt: skip


class _Test:
    """A job made ready for trials: its initial state, its sample, and the orders of its examples."""

    def __init__(self, job: Job, data: Data) -> None:
        self.size = min(job.plan.cadence.batch_sizes(job.n_train))
        self.n_each = min(_MOST_UPDATES, max(_LEAST_UPDATES, math.ceil(_EXAMPLES / self.size)))
        settings = replace(job.settings, watch_gradient=False, watch_noise=False)
        team = Team(deterministic=job.team.deterministic)  # each process by itself: its rates are tried on one device
        bare = replace(job, settings=settings, schedule=Schedule(), learning_rate=1.0, team=team)
        one = len(job.plan.cadence.phases) == 1
        bare = bare if one else with_cadence(bare, every("dataset" if self.size == job.n_train else self.size))
        same = self.size == job.n_train or job.plan.order.kind == "as given"  # the same batches in every repeat
        self.repeats = 1 if same else REPEATS
        self._jobs = [_reordered(bare, (job.settings.seed + _ORDER + k) % 2**32) for k in range(self.repeats)]
        self.data, self.state, self.n_updates = data, job.initial_state(), 0
        keys = np.random.Generator(np.random.Philox(self._jobs[0].settings.seed))
        self.sample = np.sort(keys.permutation(job.split.train)[:_SAMPLE])
        self._block = block_for(job.example_floats)
        self._evaluate = evaluator(job.model, job.loss, self._block)

    def loss(self, params: Any) -> float:
        """Returns the mean loss of the sample."""
        data = foreseen(self.data, fetches(self._block, [self.sample]))
        (sums,) = jax.device_get(self._evaluate(params, data, (jnp.asarray(self.sample),)))
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.float64(sums.loss) / np.float64(sums.weight))

    def trial(self, rate: float, repeat: int) -> float:
        """Returns the sample's loss after updates with a rate from the initial weights; infinite if it diverged."""
        return next(self.losses([rate], repeat, self.n_each), math.inf)

    def losses(self, rates: Sequence[float], repeat: int, n_each: int) -> Iterator[float]:
        """Yields the sample's loss after `n_each` updates with each rate, all in one training, while it is finite."""
        engine = Engine(self._jobs[repeat], self.data, self.state)
        for k, rate in enumerate(rates):
            engine.rate = jnp.float32(rate)
            end = (k + 1) * n_each
            try:
                while engine.clock.updates < end:
                    before = engine.clock.updates
                    engine.advance([Duration(float(end), "updates")])
                    self.n_updates += engine.clock.updates - before
            except NotFinite:
                return
            loss = self.loss(engine.state.params)
            if not math.isfinite(loss):
                return
            yield loss


def _reordered(job: Job, seed: int) -> Job:
    """Returns the job with another order and other random numbers in training; its initial state is not the run's."""
    order = replace(job.plan.order, seed=seed)
    return replace(job, settings=replace(job.settings, seed=seed), plan=replace(job.plan, order=order))


def _where_it_rises(test: _Test, first: float) -> float:
    """Returns about which rate the loss rises far: by one training whose rate rises by a factor 4 at each update."""
    rates = [_FIRST * _FIRST_FACTOR**k for k in range(_N_FIRST)]
    best, fell, seen = first, None, 0
    for rate, loss in zip(rates, test.losses(rates, 0, 1), strict=False):
        if loss > first + _RISEN * max(abs(first), first - best):
            return rate
        seen += 1
        if loss < best:
            best, fell = loss, rate
    if seen < len(rates):  # something was no longer finite
        return rates[seen]
    return rates[-1] if fell is None else fell  # a loss with a bound never rises far


def _around(test: _Test, first: float, top: float, progress: Callable[[float], None]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (rates, losses `[repeats, rates]`), from where the loss rises down to some rates below the best one.

    Raises:
        SettingsError: the loss fell nowhere.
    """
    tried: dict[float, np.ndarray] = {}

    def take(rate: float) -> float:
        tried[rate] = np.array([test.trial(rate, repeat) for repeat in range(test.repeats)])
        progress(1 - 0.9 ** len(tried))  # how many there will be is not known
        return float(np.median(tried[rate]))

    best, since, k, rate = math.inf, 0, 1, top * FACTOR
    while rate > min(_LEAST, top * _LEAST) and not (best < first - _FALL * abs(first) and since >= _BELOW):
        loss = take(rate)
        best, since = (loss, 0) if loss < best else (best, since + 1)
        k -= 1
        rate = top * FACTOR**k
    if not best < first - _FALL * abs(first):
        raise SettingsError(
            f'learning_rate="auto": the training loss, {first:.3g}, fell with no rate from {rate:.0e} to '
            f"{top * FACTOR:.0e}, so none can be found; look at the loss and the data, or give a learning rate."
        )
    while True:
        rates = sorted(tried)
        curves = np.stack([tried[rate] for rate in rates], axis=1)
        at_the_top = _last_lowest(np.median(curves, axis=0), first) == len(rates) - 1
        if not at_the_top or rates[-1] > _HIGHEST:
            return np.array(rates), curves
        take(rates[-1] * FACTOR)


def _last_lowest(loss: np.ndarray, first: float) -> int:
    """Returns the last place that belongs to the lowest one: all from there to it are within 2 % of the fall."""
    last = int(np.argmin(loss))
    near = loss[last] + _NEAR * (first - loss[last])
    while last + 1 < len(loss) and loss[last + 1] <= near:
        last += 1
    return last
