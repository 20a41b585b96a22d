"""Data small enough that compiling, not computing, is what a test of the comparison costs."""

from typing import NamedTuple

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits

import backbeat as bb
from backbeat.compare import Comparison


class Arrays(NamedTuple):
    x: np.ndarray
    y: np.ndarray


@pytest.fixture(scope="session")
def digits() -> Arrays:
    """110 digits: with a fifth held out 88 to train on, so that batches of 32 end in one of 24."""
    x, y = (np.asarray(array)[:110] for array in load_digits(return_X_y=True))
    return Arrays((x / 16).astype(np.float32), y.astype(np.int32))


@pytest.fixture(scope="session")
def diabetes() -> Arrays:
    """442 people of scikit-learn's diabetes data, standardised: linear least squares reaches r2 of about 0.5."""
    x, y = (np.asarray(array) for array in load_diabetes(return_X_y=True))
    return Arrays((x / x.std(axis=0)).astype(np.float32), ((y - y.mean()) / y.std()).astype(np.float32))


@pytest.fixture(scope="session")
def comparison(digits: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """One comparison, recorded, that several tests look at.

    The budget is far more than is needed, since tuning and measuring end when the target is reached: so that what they
    find does not depend on how busy the machine is.
    """
    folder = tmp_path_factory.mktemp("comparison") / "run"
    return bb.compare(
        bb.linear(), digits, every=[8, "dataset"], target="accuracy>=0.7", budget="120 s", seed=3, run=folder
    )
