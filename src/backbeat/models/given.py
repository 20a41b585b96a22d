"""The model that a user's value stands for: a built-in, a pair of functions, or an object of another framework."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

from ..errors import SettingsError
from .adapted import Adapted
from .model import Architecture, Functions, Model
from .own_code import OwnCode
from .source import Source

# the library's module, its kind of model, and what adapts it; looked at only where the library is in use already
_FRAMEWORKS = (
    ("torch.nn", "Module", "torch_module", "torch_model"),
    ("flax.nnx", "Module", "nnx_module", "nnx_model"),
    ("equinox", "Module", "equinox_module", "equinox_model"),
    ("keras", "Layer", "keras_model", "keras_model"),
)


def model_for(model: Any, input_shape: tuple[int, ...], n_outputs: int) -> Model:
    """Returns the model that a user's value stands for, once the data is known.

    Args:
        model: `mlp(...)`, `linear()`, `cnn(...)`; an (init, apply) pair or any object with `init` and `apply`; a model
            of PyTorch, Flax NNX, Equinox or Keras, which starts from the weights that it has; a class or a function
            that makes one, called with those of key, seed, rngs, input_shape and n_outputs that its signature names,
            which makes new weights for each seed; or what `parse_model("file.py:name")` gives.
        input_shape: the shape of one example.
        n_outputs: how many numbers the network gives for one example.

    Raises:
        SettingsError: anything else, and what cannot be trained exactly.
        MissingExtraError: a library that the model needs is not installed.

    Example:
        >>> from backbeat.models import mlp
        >>> str(model_for(lambda n_outputs: mlp(hidden=(32,)), (8, 8), 10))
        '64-32-10'
    """
    if not isinstance(model, OwnCode):
        return _model_for(model, input_shape, n_outputs, None)
    return _model_for(model.load(), input_shape, n_outputs, model)


def _model_for(model: Any, input_shape: tuple[int, ...], n_outputs: int, code: OwnCode | None) -> Model:
    name = None if code is None else str(code)
    again = None if code is None else lambda: code.load(again=True)
    adapter = _adapter(model)
    if adapter is not None:
        return adapter(Source(model, False, name, input_shape, n_outputs, again))
    plain = _plain(model, input_shape, n_outputs)
    if plain is not None:
        return plain
    if callable(model):
        source = Source(model, True, name, input_shape, n_outputs)
        adapter = _adapter(source.first)
        plain = _plain(source.first, input_shape, n_outputs) if adapter is None else adapter(source)
        if plain is not None:
            return plain
        called = name or getattr(model, "__name__", repr(model))
        raise SettingsError(
            f"{called} made {_shown(source.first)}, which is no model; it must return a model, or a pair "
            "of functions (init(key) -> params, apply(params, x) -> predictions)."
        )
    raise SettingsError(
        f"model={_shown(model)} is not a model; give backbeat.mlp(...), linear(), cnn(...), a model of PyTorch, Flax "
        "NNX, Equinox or Keras, or a pair of functions (init(key) -> params, apply(params, x) -> predictions)."
    )


def _adapter(model: Any) -> Callable[[Source], Adapted] | None:
    """Returns what makes a model of an object of another framework; None where it is none."""
    for library, kind, file, function in _FRAMEWORKS:
        module = sys.modules.get(library)
        if module is not None and isinstance(model, getattr(module, kind)):
            return getattr(importlib.import_module(f".{file}", __package__), function)
    return None


def _plain(model: Any, input_shape: tuple[int, ...], n_outputs: int) -> Model | None:
    """Returns the model of a built-in architecture, a pair of functions or an object with `init` and `apply`."""
    if isinstance(model, type):
        return None
    if isinstance(model, Architecture):
        return model.build(input_shape, n_outputs)
    if isinstance(model, tuple) and len(model) == 2 and all(callable(part) for part in model):
        return Functions(*model)
    if not isinstance(model, Model):
        return None
    if "flax.linen" in sys.modules and isinstance(model, sys.modules["flax.linen"].Module):
        raise SettingsError(
            f"model={type(model).__name__} is a Flax Linen module, whose init needs an example; give the pair "
            "(lambda key: module.init(key, x[:1]), module.apply)."
        )
    try:
        hash(model)
    except TypeError:
        return Functions(model.init, model.apply)
    return model


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
