"""Update rules: each name is the Optax rule that it says, fed with the mean gradient, once per update."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from backbeat.errors import SettingsError
from backbeat.losses import cross_entropy
from backbeat.models import linear, theta
from backbeat.optimizer import OPTIMIZERS, global_norm, optimizer_for
from backbeat.update import State, update, update_in_blocks

RATE = 0.05
BY_HAND = {
    "sgd": optax.sgd(RATE),
    "momentum": optax.sgd(RATE, momentum=0.9),
    "nesterov": optax.sgd(RATE, momentum=0.9, nesterov=True),
    "adam": optax.adam(RATE),
    "adamw": optax.adamw(RATE),
    "rmsprop": optax.rmsprop(RATE),
    "adagrad": optax.adagrad(RATE),
    "lion": optax.lion(RATE),
    "lamb": optax.lamb(RATE),
}
PARAMS = {"weight": jnp.arange(6.0).reshape(2, 3) / 5, "bias": jnp.array([0.5, -0.5, 0.1])}
GRADIENTS = [jax.tree.map(lambda p, s=s: jnp.cos(p * 3 + s), PARAMS) for s in range(3)]


def steps(init: Any, apply: Any) -> Any:
    params, state = PARAMS, init(PARAMS)
    for gradient in GRADIENTS:
        params, state = apply(gradient, state, params)
    return params


def with_optax(rule: optax.GradientTransformation) -> Any:
    def apply(gradient: Any, state: Any, params: Any) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):  # Optax's own arithmetic mixes types
            changes, state = rule.update(gradient, state, params)
        return optax.apply_updates(params, changes), state

    return steps(rule.init, apply)


def with_ours(optimizer: Any, **options: Any) -> Any:
    rule = optimizer_for(optimizer, **options)
    return steps(rule.init, lambda g, s, p: rule.apply(g, s, p, jnp.float32(RATE)))


def assert_same(one: Any, other: Any):
    """The rate is an array in ours and a constant in Optax: a unit in the last place of values of order 1."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-7), one, other)


def test_every_name_is_tested():
    assert BY_HAND.keys() == OPTIMIZERS.keys()


@pytest.mark.parametrize("name", BY_HAND)
def test_each_name_equals_optax_used_by_hand(name: str):
    assert_same(with_ours(name), with_optax(BY_HAND[name]))


def test_own_transformation_and_own_factory():
    assert_same(with_ours(optax.adam(RATE)), with_optax(optax.adam(RATE)))
    assert_same(with_ours(optax.adam), with_optax(optax.adam(RATE)))
    assert not optimizer_for(optax.adam(RATE)).tunable


def test_weight_decay_is_added_to_the_gradient_or_decoupled_where_the_rule_says_so():
    coupled = optax.chain(optax.add_decayed_weights(0.1), optax.adam(RATE))
    assert_same(with_ours("adam", weight_decay=0.1), with_optax(coupled))
    assert_same(with_ours("adamw", weight_decay=0.1), with_optax(optax.adamw(RATE, weight_decay=0.1)))


def test_clipping_comes_first_and_keeps_the_direction():
    chained = optax.chain(optax.clip_by_global_norm(0.3), optax.sgd(RATE, momentum=0.9))
    assert_same(with_ours("momentum", clip=0.3), with_optax(chained))
    norm = float(np.linalg.norm(theta(GRADIENTS[0])))
    assert float(global_norm(GRADIENTS[0])) == pytest.approx(norm, rel=1e-6)
    assert norm > 0.3  # else the line above would test nothing


MODEL = linear().build((4,), 3)
X = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 10).astype(np.int32)


@pytest.mark.parametrize("name", ["adam", "momentum"])
@pytest.mark.parametrize("block", [1, 3, 5])
def test_a_batch_cut_into_blocks_runs_the_rule_once(name: str, block: int):
    """Decay, clipping and Adam's count see the batch: the same state to float32 rounding, the count exactly."""
    rule = optimizer_for(name, weight_decay=0.01, clip=0.2)
    params = MODEL.init(jax.random.key(0))
    one = many = State(params, rule.init(params))

    def take(number: Any) -> tuple:
        where = number * block + jnp.arange(block)
        row = jnp.minimum(where, 9)
        return jnp.asarray(X)[row], jnp.asarray(Y)[row], (where < 10).astype(jnp.float32), None

    whole, batch, rate = (MODEL, cross_entropy(), rule), (jnp.asarray(X), jnp.asarray(Y), None, None), jnp.float32(0.1)
    once = jax.jit(lambda state: update(*whole, state, batch, rate, plain=True, watch=True))
    blocks = jax.jit(lambda state: update_in_blocks(*whole, state, take, -(-10 // block), rate, watch=True))
    norms = []
    for _ in range(3):
        one, seen = once(one)
        many, also = blocks(many)
        norms.append(float(seen.gradient_norm))
        assert float(also.loss) == pytest.approx(float(seen.loss), rel=1e-5)
        assert float(also.gradient_norm) == pytest.approx(float(seen.gradient_norm), rel=1e-5)
    # 1e-5: rounding of the sums, which Adam's division by √v ≈ |g| passes on unchanged in proportion
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), one, many)
    counts = [leaf for leaf in jax.tree.leaves(many.optimizer) if jnp.issubdtype(leaf.dtype, jnp.integer)]
    assert all(int(count) == 3 for count in counts)
    assert counts or name != "adam"
    assert min(norms) > 0.2  # the clip was at work


def test_plain_and_weighted_forms_are_the_same_update():
    rule = optimizer_for("adam")
    params = MODEL.init(jax.random.key(0))
    state, batch = State(params, rule.init(params)), (jnp.asarray(X), jnp.asarray(Y))
    plain, a = update(
        MODEL, cross_entropy(), rule, state, (*batch, None, None), jnp.float32(0.1), plain=True, watch=True
    )
    form, b = update(
        MODEL, cross_entropy(), rule, state, (*batch, jnp.ones(10), None), jnp.float32(0.1), plain=False, watch=True
    )
    np.testing.assert_allclose(theta(form.params), theta(plain.params), atol=1e-6)
    assert a.noise is None
    assert b.noise is None
    np.testing.assert_allclose(np.array(a[:3]), np.array(b[:3]), rtol=1e-6)


@pytest.mark.parametrize(
    "rule",
    [
        optax.MultiSteps(optax.sgd(0.1), 4),
        optax.MultiSteps(optax.sgd(0.1), 4).gradient_transformation(),
        lambda rate: optax.MultiSteps(optax.sgd(rate), 4),
        optax.chain(optax.clip(1.0), optax.MultiSteps(optax.sgd(0.1), 4).gradient_transformation()),
    ],
)
def test_multi_steps_is_refused_wherever_it_hides(rule: Any):
    with pytest.raises(SettingsError, match="MultiSteps runs its rule on every part of a batch"):
        optimizer_for(rule).init(PARAMS)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"optimizer": "adm"}, "optimizer='adm' is not known; did you mean 'adam'"),
        ({"optimizer": 3}, "give a name, optax.adam, or an Optax transformation"),
        ({"optimizer": "sgd", "weight_decay": -1.0}, "must be a number, 0 or more"),
        ({"optimizer": "sgd", "clip": 0.0}, "must be a number, more than 0, or None"),
    ],
)
def test_what_is_no_rule_is_refused(given: dict, sentence: str):
    with pytest.raises(SettingsError, match=sentence):
        optimizer_for(**given)


def test_what_a_rule_is_called():
    assert str(optimizer_for("adam", clip=1.0, weight_decay=0.1)) == "adam, weight decay 0.1, clip 1"
