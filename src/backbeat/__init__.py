"""backbeat: after how many examples should the weights change? Measured on your own model, data and machine.

    import backbeat as bb
    run = bb.fit(bb.mlp(hidden=(32,)), (X, y), every=32)
    comparison = bb.compare(bb.mlp(hidden=(32,)), (X, y), every=[1, 32, "dataset"], target="accuracy>=0.95")

Names are imported when they are first used, so that `import backbeat` starts no device and stays quick.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "every": "cadence",
    "mlp": "models",
    "linear": "models",
    "cnn": "models",
    "theta": "models",
    "from_theta": "models",
    "n_parameters": "models",
    "cross_entropy": "losses",
    "binary_cross_entropy": "losses",
    "squared_error": "losses",
    "gradient": "gradient",
    "per_example_gradients": "gradient",
    "train": "train",
    "fit": "run",
    "load_run": "saved",
    "compare": "compare",
    "verify": "verify",
    "advise": "advise",
    "BackbeatClassifier": "estimator",
    "BackbeatRegressor": "estimator",
    "BackbeatError": "errors",
}
__all__ = list(_HOMES)

if TYPE_CHECKING:
    from .advise import advise as advise
    from .cadence import every as every
    from .compare import compare as compare
    from .errors import BackbeatError as BackbeatError
    from .estimator import BackbeatClassifier as BackbeatClassifier
    from .estimator import BackbeatRegressor as BackbeatRegressor
    from .gradient import gradient as gradient
    from .gradient import per_example_gradients as per_example_gradients
    from .losses import binary_cross_entropy as binary_cross_entropy
    from .losses import cross_entropy as cross_entropy
    from .losses import squared_error as squared_error
    from .models import cnn as cnn
    from .models import from_theta as from_theta
    from .models import linear as linear
    from .models import mlp as mlp
    from .models import n_parameters as n_parameters
    from .models import theta as theta
    from .run import fit as fit
    from .saved import load_run as load_run
    from .train import train as train
    from .verify import verify as verify


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'backbeat' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _Package(ModuleType):
    """Keeps `backbeat.train` the function: importing the module of that name would put itself in its place."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
