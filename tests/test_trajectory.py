"""Whole trainings against scikit-learn and PyTorch: from the same weights, in the same order, with the same γ."""

from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

from backbeat.data import load
from backbeat.models import mlp
from backbeat.order import Order
from backbeat.run import fit

HIDDEN, EPOCHS, N = 16, 2, 400
MODEL = mlp((HIDDEN,), "relu")
DIGITS = load("digits")
X, Y = DIGITS.x[:N].reshape(N, -1), DIGITS.y[:N]  # 400 is no multiple of 32: the last batch has 16
INITIAL = jax.tree.map(np.asarray, MODEL.build((64,), 10).init(jax.random.key(1)))

# float32 rounding (1.2e-7 of each sum of 64 terms of order 1) over up to 800 updates, which hardly amplify it
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 2e-5}


def ours(every: Any, **settings: Any) -> dict:
    run = fit(MODEL, (X, Y), every=every, held_out=0.0, evaluate="never", seed=3, params=INITIAL,
              duration=f"{EPOCHS} epochs", **settings)  # fmt: skip
    return jax.tree.map(np.asarray, run.params)


def batches(every: Any) -> Any:
    m = N if every == "dataset" else every
    for order in Order("reshuffled", 3, N).epochs(0, EPOCHS):
        yield from np.split(order, range(m, N, m))


def assert_close(found: dict, weights: list, biases: list):
    for layer, weight, bias in zip(("dense_0", "dense_1"), weights, biases, strict=True):
        np.testing.assert_allclose(found[layer]["weight"], weight, **CLOSE)
        np.testing.assert_allclose(found[layer]["bias"], bias, **CLOSE)
        moved = np.abs(found[layer]["weight"] - INITIAL[layer]["weight"]).max()
        assert moved > 100 * CLOSE["atol"]  # the training did something that could differ


@pytest.mark.parametrize("every", [1, 32, "dataset"])
def test_equals_scikit_learns_sgd(every: Any):
    from sklearn.neural_network import MLPClassifier

    theirs: Any = MLPClassifier((HIDDEN,), solver="sgd", learning_rate_init=0.05, momentum=0, nesterovs_momentum=False,
                           alpha=0, shuffle=False)  # fmt: skip
    theirs.partial_fit(X, Y, classes=np.arange(10))  # makes its arrays; then our weights go in
    theirs.coefs_ = [INITIAL[layer]["weight"].copy() for layer in ("dense_0", "dense_1")]
    theirs.intercepts_ = [INITIAL[layer]["bias"].copy() for layer in ("dense_0", "dense_1")]
    for batch in batches(every):
        theirs.batch_size = len(batch)
        theirs.partial_fit(X[batch], Y[batch])
    assert_close(ours(every, learning_rate=0.05), theirs.coefs_, theirs.intercepts_)


RULES = [
    ("sgd", "SGD", {"lr": 0.05}, [1, 32, "dataset"]),
    ("momentum", "SGD", {"lr": 0.01, "momentum": 0.9}, [32]),
    ("nesterov", "SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}, [32]),
    ("adam", "Adam", {"lr": 0.001}, [32, "dataset"]),
]


@pytest.mark.parametrize(("name", "theirs", "options", "every"), [(n, t, o, e) for n, t, o, es in RULES for e in es])
def test_equals_pytorch(torch: ModuleType, name: str, theirs: str, options: dict, every: Any):
    layers = []
    for layer in ("dense_0", "dense_1"):
        dense = torch.nn.Linear(*INITIAL[layer]["weight"].shape)
        dense.weight.data = torch.tensor(INITIAL[layer]["weight"].T.copy())
        dense.bias.data = torch.tensor(INITIAL[layer]["bias"].copy())
        layers.append(dense)
    network = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1])
    rule = getattr(torch.optim, theirs)(network.parameters(), **options)
    x, y = torch.tensor(X), torch.tensor(Y).long()
    for batch in batches(every):
        rule.zero_grad()
        torch.nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
        rule.step()
    weights = [dense.weight.detach().numpy().T for dense in layers]
    assert_close(
        ours(every, optimizer=name, learning_rate=options["lr"]), weights, [d.bias.detach().numpy() for d in layers]
    )
