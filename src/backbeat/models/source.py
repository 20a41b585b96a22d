"""Where a model of the user's own comes from: an object with weights, or what makes one with new weights for a seed."""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax import Array

from ..errors import BackbeatError, MissingExtraError, SettingsError
from .refusal import one_line, place_of

EXTRAS = {"torch": "torch", "torchax": "torch", "flax": "flax", "equinox": "equinox", "keras": "keras"}


@dataclass(frozen=True)
class Source:
    """A user's object, or what makes one: a class or a function.

    Attributes:
        given: the object or the factory.
        makes: whether it is a factory.
        name: what a message or a record calls it; None for the kind of the object.
        input_shape: the shape of one example.
        n_outputs: how many numbers the network gives for one example.
        again: gives a fresh object, where `given` is shared by all who name its file.
    """

    given: Any
    makes: bool
    name: str | None
    input_shape: tuple[int, ...]
    n_outputs: int
    again: Callable[[], Any] | None = None

    def make(self, key: Array) -> Any:
        """Returns the object for a random key: a new one of a factory, the same one otherwise."""
        if not self.makes:
            return self.given
        return made_by(self.given, key, self.input_shape, self.n_outputs, self.name)

    @cached_property
    def first(self) -> Any:
        """The object that shows what the network looks like."""
        return self.make(jax.random.key(0))

    def target(self) -> Any:
        """Returns the object that trained weights go into: the user's own, or a new one of a factory or a file."""
        return self.again() if self.again is not None and not self.makes else self.make(jax.random.key(0))


def made_by(factory: Callable, key: Array, input_shape: tuple[int, ...], n_outputs: int, name: str | None) -> Any:
    """Returns what a factory makes, called with those of key, seed, rngs, input_shape, n_outputs that it has.

    PyTorch's, NumPy's and Python's own random numbers start from the seed while it runs and are left as they were.

    Raises:
        SettingsError: it needs another argument, or fails.
    """
    called: str = name or getattr(factory, "__name__", type(factory).__name__)
    words = {
        "key": lambda: key, "seed": lambda: seed_of(key), "rngs": lambda: _rngs(key),
        "input_shape": lambda: input_shape, "n_outputs": lambda: n_outputs,
    }  # fmt: skip
    asked = _asked(factory, words, called)
    had_torch = "torch" in sys.modules
    try:
        with seeded(seed_of(key)):
            made = factory(**{word: words[word]() for word in asked})
        if not had_torch and "torch" in sys.modules:  # it imported PyTorch itself, so its numbers were not seeded
            return made_by(factory, key, input_shape, n_outputs, name)
        return made
    except BackbeatError:
        raise
    except ModuleNotFoundError as error:
        raise MissingExtraError(missing(error, called)) from error
    except Exception as error:
        what, at = one_line(error, kind=True), place_of(error)
        raise SettingsError(f"{called} failed to make a model: {what}{f' ({at})' if at else ''}.") from error


def _asked(factory: Callable, words: dict[str, Any], name: str) -> list[str]:
    """Returns the arguments that a factory's signature names; refuses one that needs what nobody knows."""
    called = factory.__init__ if isinstance(factory, type) else factory  # a metaclass may hide the class's own
    try:
        parameters = list(inspect.signature(called).parameters.values())[isinstance(factory, type) :]
    except (TypeError, ValueError):
        return []
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for parameter in parameters:
        unknown = parameter.name not in words or parameter.kind is inspect.Parameter.POSITIONAL_ONLY
        if unknown and parameter.default is parameter.empty and parameter.kind not in variable:
            raise SettingsError(
                f"{name} needs {parameter.name!r}, which the data does not tell; give it a default, or a function that "
                f"makes the model from some of {', '.join(words)}, for example lambda: {name}({parameter.name}=...)."
            )
    return [p.name for p in parameters if p.name in words]


def seed_of(key: Array) -> int:
    """Returns the seed of a random key: that of `jax.random.key(seed)`, some number for other keys.

    Example:
        >>> import jax
        >>> seed_of(jax.random.key(7))
        7
    """
    data = np.asarray(jax.random.key_data(key)).reshape(-1)
    return (int(data[-2]) << 32 | int(data[-1])) & (2**63 - 1)


def _rngs(key: Array) -> Any:
    return needed("flax.nnx", "rngs=").Rngs(key)


def needed(library: str, what: str) -> Any:
    """Returns a library's module; names the extra to install where it is missing.

    Raises:
        MissingExtraError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        raise MissingExtraError(missing(error, what)) from None


def missing(error: ModuleNotFoundError, what: str) -> str:
    """Returns the sentence for a library that is not installed, with the extra that brings it, if there is one."""
    library = (error.name or "a module").split(".")[0]
    install = f"'backbeat[{EXTRAS[library]}]'" if library in EXTRAS else library
    return f"{what} needs {library}, which is not installed; run: pip install {install}."


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Lets Python's, NumPy's and PyTorch's own random numbers start from a seed, and gives them back as they were.

    Keras takes the seeds of its initial weights from Python's.
    """
    python, numpy = random.getstate(), np.random.get_state()
    torch = sys.modules.get("torch")
    of_torch = None if torch is None else torch.get_rng_state()
    _seed_all(seed, torch)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if torch is not None:
            torch.set_rng_state(of_torch)


def _seed_all(seed: int, torch: Any) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if torch is not None:
        torch.default_generator.manual_seed(seed)
