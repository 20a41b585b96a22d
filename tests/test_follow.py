"""A batch that follows the noise: against a plain loop in NumPy; the same bits however it is cut; what it refuses."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbeat.cadence import every
from backbeat.errors import DivergedError, SettingsError
from backbeat.estimator import BackbeatRegressor
from backbeat.events import Started, StretchDone
from backbeat.follow import Follower, Window, chosen_size, leading_scale, rate_factor
from backbeat.models import linear
from backbeat.noise import NoiseScale, NoiseSums, noise_scale
from backbeat.norms import Lengths
from backbeat.order import Order
from backbeat.run import fit
from backbeat.train import train

RNG = np.random.default_rng(5)
N = 200
X = RNG.normal(size=(N, 3)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5]) + 0.4 * RNG.normal(size=N)).astype(np.float32)
WEIGHT = RNG.integers(1, 4, N).astype(np.float32)
LINE = linear(bias=False)
START = {"dense_0": {"weight": np.zeros((3, 1), np.float32)}}
SETTINGS: dict[str, Any] = {
    "loss": "squared_error", "held_out": 0.0, "seed": 4, "learning_rate": 0.02, "every": "noise 4 to 16",
    "duration": "800 updates", "evaluate": "never", "params": START,
}  # fmt: skip


def run_of(weight: np.ndarray | None = None, **settings: Any) -> Any:
    data = (X, Y) if weight is None else (X, Y, weight)
    return fit(LINE, data, **{**SETTINGS, **settings})


def sizes_of(run: Any) -> list[int]:
    """Returns M of each row of a run's history, each value once."""
    column = run.history["batch_size"]
    made = column[np.isfinite(column)].astype(int)
    return made[np.insert(np.diff(made) != 0, 0, True)].tolist()


def batches(order: Order, size: Any, short: str) -> Any:
    """Yields the examples of each batch, by an order's own numbers; `size()` is asked before each of them."""
    epoch, position = 0, 0
    while True:
        m = size()
        here = order.epochs(epoch, 1)[0]
        left = N - position
        if left < m and short == "carry":
            yield np.concatenate([here[position:], order.epochs(epoch + 1, 1)[0][: m - left]])
            epoch, position = epoch + 1, m - left
        elif left < m and short == "drop":
            epoch, position = epoch + 1, 0
            continue
        else:
            yield here[position : position + m]
            position += min(m, left)
        if position == N:
            epoch, position = epoch + 1, 0


def by_hand(n: int, weight: np.ndarray, *, kind: str = "reshuffled", short: str = "keep") -> tuple:
    """Returns θ and (M, factor) of each update: a plain loop in float64 with each example's gradient by its formula."""
    theta, used, size, factor, point, first = np.zeros(3), 0, 4, 1.0, 16 * 4, 0
    parts, kept, taken = [], np.zeros((4, 20)), []
    for u, batch in enumerate(batches(Order(kind, 4, N), lambda: size, short)):  # noqa: B023  # asked at once
        if u == n:
            return theta, taken
        x, y, w = X[batch].astype(float), Y[batch].astype(float), weight[batch].astype(float)
        each = (x @ theta - y)[:, None] * x
        p = w / w.sum()
        mean = p @ each
        m, share = p @ (each**2).sum(1), p @ p
        parts.append(((mean @ mean - share * m) / (1 - share), (m - mean @ mean) / (1 - share), len(batch), 1 / share))
        theta = theta - 0.02 * factor * mean
        taken.append((size, factor))
        used += len(batch)
        if used < point:
            continue
        kept = kept / 2
        for k, part in enumerate(parts):
            kept[:, (first + k) % 20] += part
        squared, trace, examples, effective = kept.sum(1)
        more = 0 if kind == "with replacement" else examples / (effective * N)
        found = noise_scale(squared, trace, kept[:2, kept[2] > 0], more)
        scale = 1 / (squared / trace + more) if found.known else max(found.low, 0)
        if found.known or scale > size:
            scale_in = min(max(scale, 4), 16)
            near = [abs(math.log2(scale_in / s)) for s in (4, 8, 16)]
            if abs(math.log2(scale_in / size)) >= 0.75:
                size = (4, 8, 16)[int(np.argmin(near))]
            factor = ((1 + scale / 4) / (1 + scale / size)) ** 0.5
        point, parts, first = used + max(16 * size, min(N, math.ceil(used / 4))), [], u + 1
    raise AssertionError("the batches never end")


@pytest.mark.parametrize(
    ("weight", "settings"),
    [
        (None, {}),
        (None, {"short_batch": "carry"}),
        (None, {"short_batch": "drop"}),
        (None, {"order": "with replacement"}),
        (WEIGHT, {}),
    ],
    ids=["keep", "carry", "drop", "with replacement", "weights"],
)
def test_a_run_is_the_plain_loop(weight: np.ndarray | None, settings: dict):
    run = run_of(weight, duration="400 updates", **settings)
    kind, short = settings.get("order", "reshuffled"), settings.get("short_batch", "keep")
    weights = np.ones(N) if weight is None else weight
    theta, taken = by_hand(400, weights, kind=kind, short=short)
    assert len({size for size, _ in taken}) == 3  # else it would say little
    rows = np.flatnonzero(np.isfinite(run.history["batch_size"]))
    ends = run.history["updates"][rows]
    assert run.history["batch_size"][rows].tolist() == [taken[end - 1][0] for end in ends]
    expected = [0.02 * taken[end - 1][1] for end in ends]
    # float32 gradients: lengths agree to about 1e-6, their difference |G|² less, where little of them is left
    np.testing.assert_allclose(run.history["learning_rate"][rows], expected, rtol=2e-4)
    np.testing.assert_allclose(run.theta, theta, rtol=1e-4, atol=1e-5)


def test_the_noise_that_grows_as_the_gradient_vanishes_makes_the_batch_grow():
    run = run_of()
    sizes = sizes_of(run)
    assert sizes[0] == 4
    assert sizes[-1] == 16
    assert set(sizes) <= {4, 8, 16}


def test_without_noise_the_batch_stays_small():
    """All examples are the same one, so that all their gradients are."""
    x, y = np.repeat(X[:1], 100, axis=0), np.repeat(Y[:1], 100)
    run = fit(LINE, (x, y), **{**SETTINGS, "duration": "200 updates"})
    assert sizes_of(run) == [4]
    assert run.history["learning_rate"].tolist() == pytest.approx([0.02] * len(run.history["updates"]), abs=0, rel=1e-6)


@pytest.mark.parametrize("settings", [{}, {"short_batch": "drop"}], ids=["keep", "drop"])
def test_the_same_bits_however_a_run_is_cut(settings: dict):
    whole = run_of(**settings)
    cut = run_of(**{**settings, "evaluate": "40 updates"})
    again = run_of(**settings)
    for other in (cut, again):
        assert np.asarray(other.theta).tobytes() == np.asarray(whole.theta).tobytes()
        assert sizes_of(other) == sizes_of(whole)
        assert other.notes == whole.notes or other is cut  # the sentence names the ends of stretches
    assert len(cut.history["updates"]) > len(whole.history["updates"])


def test_sums_of_a_window_do_not_depend_on_its_stretches():
    big, small = RNG.uniform(1, 2, (2, 50)).astype(np.float32)
    measured = Lengths(big, small, np.full(50, 1 / 8, np.float32))
    sizes = np.full(50, 8)
    whole = Window(3).more(measured, sizes).sums(100).columns
    pieces = Window(3)
    for start, end in ((0, 1), (1, 20), (20, 50)):
        pieces = pieces.more(Lengths(*(c[start:end] for c in measured)), sizes[start:end])
    assert pieces.sums(100).columns.tobytes() == whole.tobytes()
    np.testing.assert_array_equal(whole, NoiseSums.of(measured, sizes, 3, 100).columns)


def test_blocks_change_nothing_but_rounding():
    whole, blocks = run_of(duration="400 updates"), run_of(duration="400 updates", block=3)
    assert sizes_of(blocks) == sizes_of(whole)
    np.testing.assert_allclose(blocks.theta, whole.theta, rtol=1e-4, atol=1e-5)  # as above


def test_the_learning_rate_is_the_schedule_times_the_gain():
    run = run_of(
        optimizer="adam", short_batch="carry", duration="600 updates", schedule="linear", evaluate="40 updates"
    )
    bare = run_of(optimizer="adam", short_batch="carry", duration="600 updates", evaluate="40 updates")
    rows = np.isfinite(run.history["batch_size"])
    left = 1 - (run.history["updates"][rows][0] - 1) / 600
    assert run.history["learning_rate"][rows][0] == pytest.approx(0.02 * left, rel=1e-6)
    factors = bare.history["learning_rate"][np.isfinite(bare.history["batch_size"])] / 0.02
    assert factors[0] == 1
    assert factors[-1] > 1.2


def test_the_learning_rate_grows_with_the_root_of_the_gain():
    assert rate_factor(100.0, 32, 8) == pytest.approx(math.sqrt((1 + 100 / 8) / (1 + 100 / 32)))
    assert rate_factor(1e12, 32, 8) == pytest.approx(2)  # nothing but noise: √(M / low)
    assert rate_factor(0.0, 32, 8) == 1  # none: more examples are worth nothing


@given(
    st.floats(0, 1e9), st.integers(0, 6), st.integers(2, 100), st.integers(1, 7), st.floats(0.5, 1)
)  # fmt: skip
def test_sizes_stay_within_the_bounds_and_near_the_noise(scale: float, now: int, low: int, n: int, power: float):
    sizes = tuple(low << k for k in range(n))
    size = sizes[min(now, n - 1)]
    chosen = chosen_size(scale, size, sizes)
    assert chosen in sizes
    inside = min(max(scale, low), sizes[-1])
    assert abs(math.log2(inside / chosen)) <= 0.75
    assert chosen_size(scale, chosen, sizes) == chosen  # it does not flutter
    assert 1 <= rate_factor(scale, chosen, low, power) <= chosen / low


def test_what_is_not_known_changes_nothing():
    unknown = NoiseScale(-1.0, 3.0, math.nan, 3.0, math.inf, 16)
    assert leading_scale(unknown, 8) is None
    assert leading_scale(unknown, 2) == 3.0
    follower = Follower.start((8, 16), 1000, 1000)
    rows = np.full(16, np.nan, np.float32)  # of batches whose noise says nothing
    after = follower.after(Lengths(rows, rows, rows), np.full(16, 8), 16, 128)
    assert (after.size, after.factor, after.point) == (8, 1.0, 128 + 128)


def test_what_is_said_and_recorded(tmp_path: Path):
    run = run_of(run=tmp_path / "run", evaluate="40 updates")
    sentence = run.notes[-1]
    assert sentence.startswith("The batch followed the noise: 4 examples, ")
    assert run.record()["followed"] == run.followed == sentence
    lines = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    stretches = [line for line in lines if line["event"] == "stretch"]
    assert {line["batch_size"] for line in stretches} == set(sizes_of(run))
    assert lines[0]["batch_sizes"] == [4, 8, 16]
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["every"] == "noise 4 to 16"
    assert len(record["history"]["batch_size"]) == len(record["history"]["updates"])
    assert run.noise is not None
    assert run.noise.n_updates == 800


def test_events_say_what_compiling_later_sizes_took():
    events = list(train(LINE, (X, Y), **SETTINGS))
    started, stretches = events[0], [event for event in events if isinstance(event, StretchDone)]
    assert isinstance(started, Started)
    new = [event.batch_size for event in stretches if event.compile_seconds]
    assert sorted(map(str, new)) == sorted({str(event.batch_size) for event in stretches} - {"4"})  # each once
    assert stretches[0].compile_seconds == 0
    told: list[Any] = []
    run = run_of(on_event=told.append)
    assert run.compile_seconds == sum(getattr(event, "compile_seconds", 0) for event in told)


@dataclass(frozen=True)
class Dropped:
    """A linear network on inputs of which each is dropped with probability ½."""

    def init(self, key: Any) -> Any:
        return {"w": jnp.zeros(3)}

    def apply(self, params: Any, x: Any) -> Any:
        return x @ params["w"]

    def apply_random(self, params: Any, x: Any, keys: Any) -> Any:
        return (x * 2 * jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (3,)))(keys).astype(x.dtype)) @ params["w"]


def test_dropout_gives_the_same_bits_however_a_run_is_cut():
    settings = {**SETTINGS, "params": None, "every": "noise 4 to 8", "short_batch": "carry", "duration": "200 updates"}
    whole, cut = (fit(Dropped(), (X, Y), **{**settings, "evaluate": each}) for each in ("never", "40 updates"))
    assert np.asarray(cut.theta).tobytes() == np.asarray(whole.theta).tobytes()
    assert sizes_of(cut) == sizes_of(whole) == [4, 8]


def test_an_estimator():
    model = BackbeatRegressor(hidden=(4,), every="noise 8 to 16", duration="20 epochs", random_state=0).fit(X, Y)
    assert model.score(X, Y) > 0.5


def test_a_run_that_diverges_stands_at_its_last_finite_state():
    with pytest.raises(DivergedError) as error:
        run_of(learning_rate=3.0)
    run: Any = error.value.run
    assert np.isfinite(run.theta).all()
    assert run.clock.updates > 0
    ended = run_of(learning_rate=3.0, duration=f"{run.clock.updates} updates")
    assert np.asarray(ended.theta).tobytes() == np.asarray(run.theta).tobytes()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: every("noise 1 to 64"), "begin at 2 examples or more"),
        (lambda: every("noise", low=8, high=12), "give an upper bound of at least 16"),
        (lambda: every("noise", low=64, high=8), "give an upper bound of at least 128"),
        (lambda: every("noise 8"), 'write "noise", or with bounds "noise 8 to 512"'),
        (lambda: every(32, low=8), 'low and high belong to "noise"'),
        (lambda: every("noise eight to 512"), "every='eight' is not a number of examples"),
        (lambda: every("noise 8 to 64 then 32 after 2 epochs"), "leave one of them out"),
        (lambda: every(32).then(after="2 epochs", every="noise"), "leave one of them out"),
        (lambda: every("noise 8 to 64 repeat until correct at most 3"), "cannot be repeated"),
        (lambda: every("noise").repeat(until="correct", at_most=3), "cannot be repeated"),
        (lambda: every("noise 8 to 500").batch_sizes(100), "every=500 but the data has 100 training examples"),
        (lambda: every("noise").batch_sizes(3), "give an upper bound of at least 4"),
        (lambda: run_of(optimizer=optax.sgd(0.1), learning_rate=None), "that holds its own"),
    ],
)
def test_refused(make: Any, sentence: str):
    with pytest.raises(SettingsError, match=re.escape(sentence)):
        make()


def test_a_comparison_has_no_place_for_it():
    from backbeat import compare

    with pytest.raises(SettingsError, match="has no batch size of its own"):
        compare(LINE, (X, Y), every=[8, "noise 8 to 64"])
