"""Token models: sequences of different lengths, filled up, with labels that are left out."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import backbeat as bb

VOCABULARY, WIDTH, LENGTH = 7, 3, 9
RNG = np.random.default_rng(0)


def init(key: Any) -> Any:
    one, other = jax.random.split(key)
    return {"table": jax.random.normal(one, (VOCABULARY, WIDTH)), "out": jax.random.normal(other, (WIDTH, VOCABULARY))}


def apply(params: Any, x: Any) -> Any:
    """Predicts each next token from the mean of those so far: `[batch, length]` -> `[batch, length, vocabulary]`."""
    embedded = params["table"][x]
    return (jnp.cumsum(embedded, axis=1) / jnp.arange(1.0, x.shape[1] + 1)[:, None]) @ params["out"]


def sequences(n: int) -> tuple[np.ndarray, np.ndarray]:
    lengths = RNG.integers(1, LENGTH + 1, n)
    x = RNG.integers(0, VOCABULARY, (n, LENGTH))
    y = np.where(np.arange(LENGTH) < lengths[:, None], RNG.integers(0, VOCABULARY, (n, LENGTH)), -1)
    y[0, 0] = VOCABULARY - 1
    return x, y


def by_hand(params: Any, x: np.ndarray, y: np.ndarray) -> float:
    """The mean over all tokens that count, in NumPy, one token after another."""
    table, out = np.asarray(params["table"], np.float64), np.asarray(params["out"], np.float64)
    losses = []
    for row, labels in zip(x, y, strict=True):
        for t, label in enumerate(labels):
            if label != -1:
                logits = table[row[: t + 1]].mean(axis=0) @ out
                losses.append(np.log(np.exp(logits).sum()) - logits[label])
    return float(np.mean(losses))


def test_the_loss_of_a_batch_is_the_mean_over_its_tokens():
    x, y = sequences(12)
    params = init(jax.random.key(0))
    run = bb.fit(
        (init, apply), (x, y), every="dataset", loss="cross_entropy:ignore=-1", held_out=0, duration="1 update",
        params=params, evaluate="never",
    )  # fmt: skip
    # float32 logarithms and sums of about 60 tokens
    assert run.history["loss_mean"][-1] == pytest.approx(by_hand(params, x, y), rel=1e-5)


@pytest.mark.parametrize("block", [1, 2, 5])
def test_blocks_weigh_by_tokens_and_not_by_sequences(block: int):
    x, y = sequences(12)
    settings: dict = {"every": 5, "loss": "cross_entropy:ignore=-1", "held_out": 0, "duration": "3 epochs"}
    whole, cut = (bb.fit((init, apply), (x, y), **settings, block=b) for b in (None, block))
    # float32 sums in another order, over 9 updates
    np.testing.assert_allclose(cut.theta, whole.theta, rtol=1e-5, atol=1e-6)


def test_one_and_nine_tokens():
    """Two sequences with 1 and 9 tokens of mean losses 10 and 0: the batch's loss is 1, and not 5, in any blocks."""

    def given(prediction: Any, label: Any) -> tuple:
        counted = label >= 0
        return jnp.where(counted, prediction, 0).sum(axis=1), counted.sum(axis=1).astype(jnp.float32)

    x = np.zeros((2, 9), np.float32)
    x[0, 0] = 10
    y = np.zeros((2, 9), np.float32)
    y[0, 1:] = -1
    pair = (lambda key: {"scale": jnp.ones(())}, lambda params, x: params["scale"] * x)
    for block in (None, 1):
        run = bb.fit(pair, (x, y), every="dataset", loss=given, held_out=0, duration="1 update", block=block)
        assert run.history["loss_mean"][-1] == 1.0
        # the gradient by the scale is the same mean, 1, so an update at 0.1 leaves 0.9
        assert run.params["scale"] == pytest.approx(0.9, rel=1e-6)


def test_a_batch_of_which_nothing_counts_moves_nothing():
    x, _ = sequences(4)
    y = np.full((4, LENGTH), -1)
    y[3, :2] = 0, VOCABULARY - 1
    run = bb.fit(
        (init, apply), (x, y), every=1, order="as given", loss="cross_entropy:ignore=-1", held_out=0,
        duration="3 updates", params=init(jax.random.key(0)),
    )  # fmt: skip
    for name, leaf in init(jax.random.key(0)).items():
        np.testing.assert_array_equal(run.params[name], leaf)
