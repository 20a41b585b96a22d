"""Initial weights of dense and convolutional networks: what JAX draws for their shape, whatever is compiled."""

import jax
import numpy as np
import pytest

from backbeat.models.dense import initial_weight


@pytest.mark.parametrize("shape", [(64, 16), (16, 10), (1, 1), (3, 3, 8, 16), (129, 64), (2049, 2048)])
def test_initial_weights_are_a_draw_of_their_shape(shape: tuple[int, ...]):
    key, fan_in = jax.random.key(7), shape[0]
    drawn = np.asarray(jax.random.normal(key, shape)) * np.float32((2 / fan_in) ** 0.5)
    np.testing.assert_array_equal(initial_weight(key, shape, fan_in, "relu"), drawn)


def test_several_keys_at_once_draw_what_each_draws():
    keys = jax.random.split(jax.random.key(3), 5)
    together = jax.vmap(lambda key: initial_weight(key, (64, 10), 64, "identity"))(keys)
    for key, weight in zip(keys, together, strict=True):
        np.testing.assert_array_equal(initial_weight(key, (64, 10), 64, "identity"), weight)
