"""What every framework's tests ask of its adapter, against numbers that the framework computed itself."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from backbeat.errors import SettingsError
from backbeat.gradient import gradient
from backbeat.models import model_for
from backbeat.run import fit

# Sums of a few hundred float32 products in another order: 1e-6 of the largest, with a margin for deep sums in an LSTM
ROUNDING = 2e-5
BATCH, UPDATES, RATE = 4, 6, 0.05


class Case(NamedTuple):
    """A model of a framework, data for it, and its own loss and gradients by name for a batch."""

    model: Any
    x: np.ndarray
    y: np.ndarray
    own: Callable[[np.ndarray, np.ndarray], tuple[float, dict[str, np.ndarray]]]


def close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=ROUNDING, atol=ROUNDING, err_msg=name)


def images(n: int = 12, *, channels_first: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    shape = (n, 1, 8, 8) if channels_first else (n, 8, 8, 1)
    return rng.normal(size=shape).astype(np.float32), rng.integers(0, 3, n).astype(np.int32)


def series(n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    return rng.normal(size=(n, 5, 3)).astype(np.float32), rng.integers(0, 3, n).astype(np.int32)


def rows(n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.normal(size=(n, 6)).astype(np.float32), rng.integers(0, 3, n).astype(np.int32)


def tokens(n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    return rng.integers(0, 11, (n, 5)).astype(np.int32), rng.integers(0, 3, n).astype(np.int32)


@pytest.fixture
def data() -> dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]]:
    """Returns what makes small data of each kind, with labels of three classes."""
    return {"images": images, "series": series, "rows": rows, "tokens": tokens}


@pytest.fixture
def agrees() -> Callable[..., None]:
    """Returns the check that loss and gradient are the framework's own, on a batch and in blocks."""

    def check(case: Any) -> None:
        model = model_for(case.model, case.x.shape[1:], 3)
        params = model.init(jax.random.key(0))
        loss, gradients = case.own(case.x, case.y)
        for block in (None, 5):  # 5 does not divide 12: the last block reaches back
            found = gradient(model, "cross_entropy", params, case.x, case.y, block=block)
            assert float(found.loss_mean) == pytest.approx(loss, rel=ROUNDING)
            close(found.mean, gradients)

    return check


@pytest.fixture
def trains() -> Callable[..., Any]:
    """Returns the check that `fit` gives the weights of a loop of the framework's own, and puts them back.

    It takes the model, the data, what the loop gave by name, and the framework's own forward pass; it gives the run.
    """

    def check(model: Any, x: Any, y: Any, expected: dict[str, Any], own_forward: Callable[[Any, Any], Any]) -> Any:
        run = fit(
            model,
            (x, y),
            every=BATCH,
            learning_rate=RATE,
            duration=f"{UPDATES} updates",
            order="as given",
            held_out=0.0,
        )
        close(run.params, expected)
        mine: Any = run.job.model
        np.testing.assert_allclose(own_forward(mine.trained(run.params), x), run.predict_raw(x), atol=ROUNDING)
        return run

    return check


@pytest.fixture
def drops() -> Callable[..., None]:
    """Returns the check of dropout: keyed by example, other for another key, right on average, none in evaluation.

    It takes a model whose outputs are its inputs after dropout of one half, times a weight of 1.
    """

    def check(model: Any, n_features: int = 400) -> None:
        built: Any = model_for(model, (n_features,), n_features)
        assert hasattr(built, "apply_random")
        params, x = built.init(jax.random.key(0)), jnp.ones((6, n_features))
        keys = jax.random.split(jax.random.key(1), 6)
        whole = built.apply_random(params, x, keys)
        halves = [built.apply_random(params, x[part], keys[part]) for part in (slice(0, 2), slice(2, 6))]
        np.testing.assert_array_equal(whole, jnp.concatenate(halves))
        assert set(np.unique(np.asarray(whole).round(4))) == {0.0, 2.0}
        assert len({row.tobytes() for row in np.asarray(whole)}) == 6  # each example its own
        other = built.apply_random(params, x, jax.random.split(jax.random.key(2), 6))
        assert (np.asarray(whole) != np.asarray(other)).mean() == pytest.approx(0.5, abs=0.05)
        # 2400 numbers of deviation 1: the mean's deviation is 0.02, and five of those are allowed
        assert float(whole.mean()) == pytest.approx(1, abs=0.1)
        np.testing.assert_array_equal(built.apply(params, x), x)

    return check


@pytest.fixture
def refused() -> Callable[..., str]:
    """Returns the check that a model is refused, made or applied, in one sentence with these words; it gives that."""

    def applied(model: Any, x: np.ndarray) -> Any:
        built = model_for(model, x.shape[1:], 3)
        return built.apply(built.init(jax.random.key(0)), jnp.asarray(x))

    def check(model: Any, x: np.ndarray, words: str, error: type[Exception] = SettingsError) -> str:
        with pytest.raises(error) as caught:
            applied(model, x)
        sentence = str(caught.value)
        assert words in sentence
        assert "\n" not in sentence
        assert sentence[-1] in ".?"
        return sentence

    return check
