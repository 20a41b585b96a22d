"""What a user's value stands for: functions that make models, seeds that they get, and what is no model."""

import random
import subprocess
import sys
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from backbeat.errors import SettingsError
from backbeat.models import Functions, linear, mlp, model_for
from backbeat.models.source import made_by, seed_of


def test_a_function_may_make_a_network_or_a_pair_of_functions():
    def pair(n_outputs: int, input_shape: tuple[int, ...]) -> Any:
        return lambda key: jnp.zeros((*input_shape, n_outputs)), lambda params, x: x @ params

    built = model_for(pair, (6,), 3)
    assert isinstance(built, Functions)
    assert built.init(jax.random.key(0)).shape == (6, 3)
    assert model_for(lambda: mlp(hidden=(4,)), (6,), 3) == mlp(hidden=(4,)).build((6,), 3)
    assert model_for(linear, (6,), 3) == linear().build((6,), 3)


def test_a_factory_gets_what_its_signature_names_and_leaves_random_numbers_as_they_were():
    found: dict[str, Any] = {}

    def factory(seed: int, key: Any, n_outputs: int, input_shape: Any, width: int = 4, **more: Any) -> str:
        found.update(locals(), drawn=(random.random(), np.random.random()))
        return "made"

    np.random.seed(11)
    expected = np.random.random(3)
    np.random.seed(11)
    key = jax.random.key(2**32 - 1)
    assert made_by(factory, key, (8, 8), 10, None) == "made"
    assert (found["seed"], found["n_outputs"], found["input_shape"], found["width"]) == (2**32 - 1, 10, (8, 8), 4)
    assert found["key"] is key
    assert found["more"] == {}
    first = found["drawn"]
    made_by(factory, key, (8, 8), 10, None)
    assert found["drawn"] == first
    made_by(factory, jax.random.key(1), (8, 8), 10, None)
    assert found["drawn"] != first
    # Python's own are put back too, but the checks of annotations in these tests draw from them
    np.testing.assert_array_equal(np.random.random(3), expected)


def test_the_seed_of_a_key_is_the_one_it_was_made_from():
    for seed in (0, 1, 2**31, 2**32 - 1):
        assert seed_of(jax.random.key(seed)) == seed
    assert seed_of(jax.random.fold_in(jax.random.key(1), 1)) not in (0, 1)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (7, "model=7 is not a model; give backbeat.mlp"),
        ((1, 2), "model=(1, 2) is not a model"),
        (np.zeros(500), "..."),
        (int, "int made 0, which is no model"),
        (lambda: None, "made None, which is no model"),
        (lambda width: None, "needs 'width', which the data does not tell"),
        (lambda: 1 / 0, "failed to make a model: ZeroDivisionError: division by zero (test_given.py, line "),
        (flax.linen.Dense(3), "a Flax Linen module, whose init needs an example"),
    ],
)
def test_what_is_no_model_is_one_sentence(model: Any, words: str):
    with pytest.raises(SettingsError, match=r"^[^\n]+\.$") as caught:
        model_for(model, (6,), 3)
    assert words in str(caught.value)


def test_no_framework_is_imported_for_a_built_in_network():
    code = (
        "import sys, backbeat as bb\n"
        "bb.fit(bb.mlp(hidden=(4,)), 'digits', duration='2 updates', evaluate='never')\n"
        "print(sorted(sys.modules.keys() & {'torch', 'torchax', 'flax', 'equinox', 'keras'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
