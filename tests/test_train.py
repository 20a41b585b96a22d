"""A run as events: their order, what they say, where a run ends, and that looking at it changes nothing."""

import time
from functools import lru_cache
from itertools import groupby, pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from backbeat.config import Settings, resolve
from backbeat.done import Run
from backbeat.errors import DivergedError, SettingsError
from backbeat.events import Diverged, Evaluated, Finished, Started, StretchDone
from backbeat.models import cnn, linear, mlp
from backbeat.order import Order
from backbeat.run import fit
from backbeat.train import Stopwatch, events_of

RNG = np.random.default_rng(0)
N = 10
X = RNG.normal(size=(N, 3)).astype(np.float32)
VALUES = (X @ np.array([1.0, -2.0, 0.5]) + 0.1 * RNG.normal(size=N)).astype(np.float32)
CLASSES = RNG.integers(0, 3, N).astype(np.int32)
LINE = linear(bias=False)
START = {"dense_0": {"weight": np.zeros((3, 1), np.float32)}}
LEAST_SQUARES: dict[str, Any] = {
    "loss": "squared_error", "held_out": 0.0, "params": START, "every": 3, "seed": 4, "learning_rate": 0.1,
}  # fmt: skip


def least_squares(x: np.ndarray = X, **settings: Any) -> Run:
    return fit(LINE, (x, VALUES), **{**LEAST_SQUARES, **settings})


def events(**settings: Any) -> list:
    given = {**LEAST_SQUARES, **settings}
    params = given.pop("params")
    return list(events_of(resolve(LINE, (X, VALUES), Settings(**given), params)))


def by_hand(n: int, rate: Any = lambda u: 0.1, x: np.ndarray = X, m: int = 3, dtype: Any = float) -> tuple[list, list]:
    """Returns w before each update and behind the last, and (Σℓ, count) of each batch: a plain loop."""
    w, states, sums, epoch = np.zeros(3, dtype), [], [], 0
    while len(sums) < n:
        for batch in np.split(Order("reshuffled", 4, N).epochs(epoch, 1)[0], range(m, N, m)):
            if len(sums) < n:
                r = x[batch].astype(dtype) @ w - VALUES[batch]
                states.append(w)
                sums.append((0.5 * (r**2).sum(), len(batch)))
                w = w - dtype(rate(len(sums))) * (r @ x[batch].astype(dtype)) / dtype(len(batch))
        epoch += 1
    return [*states, w], sums


def test_events_come_in_order_and_clocks_only_go_forward():
    found = events(duration="3 epochs", evaluate="1 epoch")
    kinds = [kind for kind, _ in groupby(type(event).__name__ for event in found)]  # an epoch may be several stretches
    assert kinds == ["Started", "Evaluated", *["StretchDone", "Evaluated"] * 3, "Finished"]
    clocks = [event.clock for event in found[1:]]
    assert [event.clock.updates for event in found if isinstance(event, Evaluated)] == [0, 4, 8, 12]
    assert [c.examples for c in clocks[-2:]] == [30, 30]
    assert all(a.seconds <= b.seconds and a.updates <= b.updates for a, b in pairwise(clocks))
    assert isinstance(found[0], Started)
    assert (found[0].n_parameters, found[0].batch_sizes) == (3, (3,))
    assert isinstance(found[-1], Finished)
    assert (found[-1].reason, found[-1].reached) == ("ran for 3 epochs", None)


def test_the_mean_loss_is_a_sum_over_a_count():
    """Batches of 3, 3, 3 and 1: Σℓ/10 an epoch, which the mean of the four means is not."""
    _, sums = by_hand(20)
    first, differ = 0, []
    for done in events(duration="5 epochs", evaluate="never"):
        if isinstance(done, StretchDone):
            its = sums[first : done.clock.updates]
            assert done.loss_mean == pytest.approx(sum(s for s, _ in its) / sum(c for _, c in its), rel=1e-5)
            np.testing.assert_allclose(done.losses, [s / c for s, c in its], rtol=1e-4)
            assert done.batch_sizes.tolist() == [c for _, c in its]
            differ.append(abs(done.loss_mean - np.mean([s / c for s, c in its])))
            first = done.clock.updates
    assert max(differ) > 0.01


def test_a_run_equals_a_plain_loop_with_weights_and_without():
    states, _ = by_hand(8)
    np.testing.assert_allclose(least_squares(duration="2 epochs").theta, states[-1], rtol=1e-5)


SCHEDULES = [
    ({"schedule": "linear"}, lambda u: 0.1 * (1 - (u - 1) / 8)),
    ({"schedule": "cosine over 6 updates"}, lambda u: 0.05 * (1 + np.cos(np.pi * min((u - 1) / 6, 1)))),
    ({"warm_up": "4 updates"}, lambda u: 0.1 * min(u / 4, 1)),
    ({"warm_up": "1 epoch"}, lambda u: 0.1 * min([3, 6, 9, 10][(u - 1) % 4] / 10 + (u - 1) // 4, 1)),
    ({"warm_up": "12 examples"}, lambda u: 0.1 * min(([3, 6, 9, 10][(u - 1) % 4] + 10 * ((u - 1) // 4)) / 12, 1)),
    ({"learning_rate": optax.linear_schedule(0.2, 0.04, 8)}, lambda u: 0.2 - 0.02 * (u - 1)),
]


@pytest.mark.parametrize(("settings", "rate"), SCHEDULES, ids=[str(*s) for s, _ in SCHEDULES])
def test_the_learning_rate_of_every_update(settings: dict, rate: Any):
    """Linear's duration is 2 epochs = 8 updates of 3, 3, 3, 1 examples, so in epochs its steps are uneven."""
    if settings.get("schedule") == "linear":
        positions = [0, 3, 6, 9, 10, 13, 16, 19]
        rate = lambda u: 0.1 * (1 - positions[u - 1] / 20)  # noqa: E731
    found = [e for e in events(duration="2 epochs", evaluate="1 update", **settings) if isinstance(e, StretchDone)]
    assert [e.learning_rate for e in found] == pytest.approx([rate(u) for u in range(1, 9)], rel=1e-6)
    states, _ = by_hand(8, rate)
    np.testing.assert_allclose(least_squares(duration="2 epochs", **settings).theta, states[-1], rtol=2e-5)


def wild(x: np.ndarray, rate: float, **settings: Any) -> Run:
    with pytest.raises(DivergedError) as caught:
        least_squares(x=x, learning_rate=rate, evaluate="never", **settings)
    assert caught.value.exit_code == 3
    assert isinstance(caught.value.run, Run)
    return caught.value.run


@pytest.mark.parametrize("evaluate", ["never", "1 update", "3 updates"])
@pytest.mark.parametrize("rate", [30.0, 3e4])
def test_a_diverged_run_names_its_update_and_keeps_the_last_finite_state(rate: float, evaluate: str):
    """The loop in NumPy's float32 overflows where ours does: the residual's square first, at 2¹²⁸."""
    with np.errstate(over="ignore", invalid="ignore"):
        states, sums = by_hand(400, lambda u: rate, dtype=np.float32)
    n = next(i for i, (s, _) in enumerate(sums) if not np.isfinite(s))  # after n updates a loss is no longer finite
    found = events(learning_rate=rate, duration="400 updates", evaluate=evaluate)
    end = found[-1]
    assert isinstance(end, Diverged)
    assert end.update == n
    assert end.clock.updates == n - 1
    assert f"diverged at update {n}: the loss stopped being finite" in end.reason
    # rounding is amplified with the weights themselves, about 30 times a step, but stays in proportion: 1e-4
    np.testing.assert_allclose(end.state.params["dense_0"]["weight"][:, 0], states[n - 1], rtol=1e-4)


def test_what_a_diverged_fit_raises():
    run = wild(X, 30.0, duration="400 updates")
    assert run.diverged
    assert np.isfinite(run.theta).all()
    with pytest.raises(DivergedError, match=r"diverged at update \d+: .*; try a learning rate below 30\. The last"):
        least_squares(learning_rate=30.0, duration="400 updates")


def test_a_loss_that_is_not_finite_from_the_start():
    bad = {"dense_0": {"weight": np.full((3, 1), np.float32(1e30))}}
    end = events(params=bad, duration="4 updates", evaluate="never")[-1]
    assert isinstance(end, Diverged)
    assert (end.update, end.clock.updates) == (0, 0)
    assert end.reason.startswith("diverged before the first update")
    with pytest.raises(DivergedError, match=r"look for what is not finite in the loss, the weights to start from"):
        least_squares(params=bad, duration="4 updates", evaluate="never")


def test_a_repeated_batch_that_diverges_names_its_update():
    from backbeat.cadence import every

    cadence = every(1).repeat(until="loss<1e-9", at_most=5)
    found = {
        e: events(learning_rate=30.0, duration="40 epochs", every=cadence, evaluate=e)[-1]
        for e in ("never", "0.1 epochs")
    }
    assert all(isinstance(end, Diverged) for end in found.values())
    one, other = found.values()
    assert (one.update, one.clock.updates) == (other.update, other.clock.updates)
    assert one.clock.updates == one.update - 1
    np.testing.assert_array_equal(one.state.params["dense_0"]["weight"], other.state.params["dense_0"]["weight"])


DIGITS = mlp(hidden=(8,))


@lru_cache
def digits(**settings: Any) -> Run:
    return fit(DIGITS, "digits", **{"duration": "3 epochs", **settings})


@pytest.mark.parametrize("every", [1, 32, "dataset"])
def test_same_settings_same_bits_whatever_is_looked_at(every: Any):
    one = digits(every=every, optimizer="adam", learning_rate=0.003)
    for evaluate in ("never", "auto", "0.4 epochs"):
        other = digits(every=every, optimizer="adam", learning_rate=0.003, evaluate=evaluate)
        np.testing.assert_array_equal(other.theta, one.theta)
        assert other.clock.updates == one.clock.updates
    assert (digits(every=every, optimizer="adam", learning_rate=0.003, seed=1).theta != one.theta).any()


def test_history_says_which_rate_and_batch_the_updates_had():
    run = digits(every=32, schedule="cosine over 135 updates", learning_rate=0.2, evaluate="1 epoch")
    made = np.isfinite(run.history["loss_mean"])
    expected = 0.1 * (1 + np.cos(np.pi * (run.history["updates"][made] - 1) / 135))  # of the last update of each row
    np.testing.assert_allclose(run.history["learning_rate"][made], expected, rtol=1e-5)  # factors are float32
    run = digits(every="32 then 128 after 1 epoch", evaluate="1 epoch")
    made = np.isfinite(run.history["loss_mean"])
    np.testing.assert_array_equal(run.history["batch_size"][made], np.where(run.history["epochs"][made] <= 1, 32, 128))
    own = digits(optimizer=optax.adam(0.003))
    assert np.isnan(own.history["learning_rate"]).all()
    assert own.record()["learning_rate"] is None


def test_history_is_columns():
    run = digits(every=32, evaluate="1 epoch")
    names = ["updates", "examples", "epochs", "wall_seconds", "update_seconds", "loss_mean", "train_loss_mean",
             "train_accuracy", "held_out_loss_mean", "held_out_accuracy"]  # fmt: skip
    assert set(run.history) == {*names, "batch_size", "learning_rate"}
    made = np.isfinite(run.history["loss_mean"])
    for name, value in (("batch_size", 32), ("learning_rate", 0.1)):
        assert set(run.history[name][made]) == {value}
        assert np.isnan(run.history[name][~made]).all()
    evaluated = np.isfinite(run.history["train_loss_mean"])  # a busy machine may end a stretch in between as well
    assert run.history["updates"][evaluated].tolist() == [0, 45, 90, 135]
    assert run.history["examples"][evaluated].tolist() == [0, 1438, 2876, 4314]
    assert len({len(column) for column in run.history.values()}) == 1
    assert np.isnan(run.history["loss_mean"]).tolist() == [True] + [False] * (len(evaluated) - 1)
    assert (np.diff(run.history["wall_seconds"]) > 0).all()


def test_a_target_stops_at_the_first_evaluation_that_meets_it():
    run = digits(every=32, target="accuracy>=0.5", duration="30 epochs")
    score = run.history["held_out_accuracy"]
    assert run.reached is True
    assert run.reason == "reached accuracy>=0.5"
    assert score[-1] >= 0.5 > score[-2]
    never = digits(every=32, target="accuracy>=1", duration="1 epoch")
    assert (never.reached, never.reason) == (False, "ran for 1 epoch")


def test_patience_stops_when_the_loss_has_not_improved_for_so_long():
    run = least_squares(duration="500 epochs", patience="4 epochs", learning_rate=0.3, evaluate="1 epoch")
    losses, epochs = run.history["train_loss_mean"], run.history["epochs"]
    assert run.reason == "no better for 4 epochs"
    assert epochs[-1] - epochs[np.nanargmin(losses)] == 4


@pytest.mark.parametrize("model", [DIGITS, cnn((8,))])  # the cost of a convolution is not its parameters
def test_a_limit_in_seconds_ends_in_time(model: Any):
    """The run's own clock may pass the limit by one stretch of the time left, and by the machine's other work."""
    start = time.perf_counter()
    run = fit(model, "digits", every=8, duration="0.3 s", evaluate="never")
    assert 0.3 <= run.clock.seconds < 5
    assert run.clock.seconds <= time.perf_counter() - start
    assert run.reason == "ran for 0.3 seconds"
    assert run.clock.updates > 20


def test_a_stopwatch_leaves_out_what_is_not_its_own():
    watch = Stopwatch()
    watch.pause()
    before = watch.seconds
    time.sleep(0.02)
    assert watch.seconds == before
    watch.go_on()
    time.sleep(0.02)
    assert before + 0.02 <= watch.seconds < before + 0.04 + 1


def test_dropped_examples_are_counted():
    run = least_squares(short_batch="drop", duration="4 epochs")
    assert (run.set_aside, run.clock.updates, run.clock.examples, run.clock.epochs) == (4, 12, 36, 4.0)


def test_a_weight_of_zero_leaves_an_example_out():
    """Full batch: the mean over the nine that weigh 1 is the same batch; rounding of sums of nine terms."""
    weight = np.ones(N, np.float32)
    weight[4] = 0
    settings = {**LEAST_SQUARES, "every": "dataset", "duration": "20 updates"}
    weighted = fit(LINE, (X, VALUES, weight), **settings)
    without = fit(LINE, (np.delete(X, 4, 0), np.delete(VALUES, 4)), **settings)
    np.testing.assert_allclose(weighted.theta, without.theta, rtol=1e-5)


def test_an_evaluation_belongs_to_the_parameters_it_was_made_with():
    run = least_squares(duration="1 epoch", evaluate="1 epoch")
    loss = 0.5 * np.mean((X @ np.asarray(run.theta) - VALUES) ** 2)
    assert run.history["train_loss_mean"][-1] == pytest.approx(loss, rel=1e-5)
    assert [type(e) for e in events(duration="1 epoch", evaluate="never")].count(Evaluated) == 0


def test_a_fixed_transformation_takes_no_learning_rate_from_outside():
    fixed = least_squares(optimizer=optax.sgd(0.2), learning_rate=None, duration="2 epochs")
    np.testing.assert_allclose(fixed.theta, least_squares(learning_rate=0.2, duration="2 epochs").theta, rtol=1e-6)
    for ignored in ({"learning_rate": 0.3}, {"schedule": "cosine"}):
        with pytest.raises(SettingsError, match="holds its own learning rate"):
            least_squares(optimizer=optax.sgd(0.2), **{"learning_rate": None, **ignored})


def test_watched_norms_are_those_of_the_mean_gradients():
    found = [e for e in events(duration="1 epoch", evaluate="never", watch_gradient=True) if isinstance(e, StretchDone)]
    states, _ = by_hand(4)
    norms = [np.linalg.norm(b - a) / 0.1 for a, b in pairwise(states)]
    np.testing.assert_allclose(np.concatenate([e.gradient_norms for e in found]), norms, rtol=1e-5)


def test_blocks_do_not_change_a_run():
    one, many = least_squares(duration="3 epochs", every=7), least_squares(duration="3 epochs", every=7, block=2)
    np.testing.assert_allclose(many.theta, one.theta, rtol=1e-5)


def test_own_functions_and_own_loss():
    pair = (lambda key: {"beta": jnp.zeros(3)}, lambda params, x: x @ params["beta"])

    def half_square(prediction: jax.Array, label: jax.Array) -> jax.Array:
        return 0.5 * (prediction - label) ** 2

    own = fit(pair, (X, VALUES), loss=half_square, every=3, seed=4, held_out=0.0, duration="2 epochs")
    np.testing.assert_allclose(own.params["beta"], least_squares(duration="2 epochs").theta, rtol=1e-6)
    with pytest.raises(SettingsError, match="the model gives 2 numbers for an example, but the labels run to 2"):
        fit((lambda key: jnp.zeros((3, 2)), lambda w, x: x @ w), (X, CLASSES), held_out=0.0, every=5)
