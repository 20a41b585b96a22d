"""A PyTorch training step of the user's own, run on examples: the gradients that it hands to its optimizer.

The step gets a copy of the module and an optimizer that keeps gradients and moves nothing, so every update is made at
the same parameters. Dropout is off meanwhile: what it drops depends on the place in the batch. The gradients of each
backward pass can be made 2⁻²⁰ times as long, which no clipping notices: what an update is made of shows there.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from ..errors import SettingsError
from ..losses import Loss
from ..models.own_code import OwnCode
from ..models.refusal import explain, one_line, place_of
from ..models.source import made_by, needed, seeded
from .torch_losses import torch_losses

SMALL = 2.0**-20
_DROPS = frozenset({
    "dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "alpha_dropout_",
    "feature_dropout", "feature_dropout_", "feature_alpha_dropout", "feature_alpha_dropout_",
})  # fmt: skip


@dataclass(frozen=True)
class Update:
    """What one call of the optimizer's step() was given.

    Attributes:
        gradients: of each parameter, float64.
        used: the numbers of the examples that were handed over since the update before.
        earlier: of those before them.
    """

    gradients: list[np.ndarray]
    used: tuple[int, ...]
    earlier: tuple[int, ...]


@dataclass(eq=False)
class TorchStep:
    """A step with the module and the examples that it is verified with.

    Attributes:
        step: (model, optimizer, x, y) for one batch, or (model, optimizer, batches) for micro-batches in a loop.
        module: a copy of the user's.
        x: `[n, ...]`.
        y: `[n, ...]`.
        loss: what the step's loss should be.
        name: of the step.
    """

    step: Callable
    module: Any
    x: np.ndarray
    y: np.ndarray
    loss: Loss
    name: str
    torch: Any = field(default_factory=lambda: needed("torch", "verifying a PyTorch step"))
    epsilon: float = 2.0**-23  # of the coarsest numbers that the module gave inside the step
    dropped: bool = False  # whether dropout had to be switched off

    def __post_init__(self) -> None:
        self.losses = torch_losses(self.torch, self.loss)
        self.buffers = {name: buffer.detach().clone() for name, buffer in self.module.named_buffers()}

    @property
    def loops(self) -> bool:
        """Whether the step takes micro-batches and loops over them itself."""
        return n_arguments(self.step, self.name) == 3

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that are trained, by name."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def tensors(self, rows: np.ndarray) -> tuple[Any, Any]:
        """Returns (x, y) of some examples as PyTorch has them: whole numbers are int64."""
        return tuple(self.torch.from_numpy(_as_torch_takes(values[rows])) for values in (self.x, self.y))  # type: ignore[return-value]

    def single(self, rows: np.ndarray, x: np.ndarray | None = None) -> tuple[list[np.ndarray], np.ndarray]:
        """Returns the gradients of examples each by itself, `[n, ...]` for each parameter, and what each counts `[n]`.

        Args:
            rows: which examples.
            x: their inputs, where they are not those of the data.

        Raises:
            SettingsError: the module or the loss cannot be applied.
        """
        parameters = list(self.parameters.values())
        found: list[list[np.ndarray]] = [[] for _ in parameters]
        counts = []
        with self._quiet():
            for place, row in enumerate(rows):
                one_x, one_y = self.tensors(np.array([row]))
                one_x = one_x if x is None else self.torch.from_numpy(x[place : place + 1])
                total, count = self._loss_of_one(one_x, one_y)
                gradients = self.torch.autograd.grad(total, parameters, allow_unused=True)
                for kept, gradient, parameter in zip(found, gradients, parameters, strict=True):
                    kept.append(self._array(gradient, parameter))
                counts.append(count)
                self._restore()
        return [np.stack(kept) for kept in found], np.array(counts)

    def _loss_of_one(self, x: Any, y: Any) -> tuple[Any, float]:
        try:
            prediction = self.module(x)
        except Exception as error:  # a user's module may raise anything
            raise SettingsError(explain(error, "the PyTorch model", tuple(x.shape))) from error
        total, count = self.losses(prediction, y)
        return total[0], 1.0 if count is None else float(count[0])

    def run(self, calls: list[list[np.ndarray]], scale: float) -> list[list[Update]]:
        """Returns the updates of several calls of the step, one after the other on one module.

        Args:
            calls: the examples of each call: micro-batches for a step that loops, else one batch.
            scale: multiplies the gradients of each backward pass.

        Raises:
            SettingsError: the step fails.
        """
        for parameter in self.parameters.values():
            parameter.grad = None
        found, earlier = [], ()
        hooks = [p.register_hook(lambda gradient: gradient * scale) for p in self.parameters.values()]
        hooks += [layer.register_forward_hook(self._note_kind) for layer in self.module.modules()]
        try:
            with self._quiet():
                for parts in calls:
                    keeper = _keeper(self, earlier)
                    self._call(keeper, parts)
                    found.append(keeper.updates)
                    earlier = (*earlier, *keeper.handed)
                    self._restore()
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def _call(self, keeper: Any, parts: list[np.ndarray]) -> None:
        def handed() -> Iterator[tuple[Any, Any]]:
            for part in parts:
                keeper.handed.extend(part.tolist())
                yield self.tensors(part)

        try:
            if self.loops:
                self.step(self.module, keeper, _Batches(handed, len(parts)))
            else:
                keeper.handed.extend(parts[0].tolist())
                self.step(self.module, keeper, *self.tensors(parts[0]))
        except Exception as error:  # a user's step may raise anything
            at = place_of(error)
            raise SettingsError(
                f"{self.name} failed: {one_line(error, kind=True)}{f' ({at})' if at else ''}; it is called with "
                f"{'(model, optimizer, batches)' if self.loops else '(model, optimizer, x, y)'}."
            ) from error

    def _note_kind(self, module: Any, given: Any, out: Any) -> None:
        if isinstance(out, self.torch.Tensor) and out.is_floating_point():
            self.epsilon = max(self.epsilon, float(self.torch.finfo(out.dtype).eps))

    @contextmanager
    def _quiet(self, seed: int = 0) -> Iterator[None]:
        """Lets nothing be dropped, and random numbers start from a seed."""
        with ExitStack() as stack:
            stack.enter_context(seeded(seed))
            stack.enter_context(_no_dropout(self))
            stack.enter_context(self.torch.enable_grad())
            yield

    def predictions(self, rows: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
        """Returns what each layer gives for a batch, by its path; "" is the module itself. Only tensors are kept."""
        kept: dict[str, np.ndarray] = {}

        def keep(path: str) -> Callable:
            def hook(module: Any, given: Any, out: Any) -> None:
                if isinstance(out, self.torch.Tensor) and out.shape[:1] == (len(rows),):
                    kept.setdefault(path, out.detach().double().numpy().reshape(len(rows), -1))

            return hook

        hooks = [layer.register_forward_hook(keep(path)) for path, layer in self.module.named_modules()]
        try:
            with self._quiet(seed), self.torch.no_grad():
                self.module(self.tensors(rows)[0])
        except Exception as error:  # a user's module may raise anything
            raise SettingsError(explain(error, "the PyTorch model", self.x[rows].shape)) from error
        finally:
            for hook in hooks:
                hook.remove()
            self._restore()
        return kept

    def _restore(self) -> None:
        """Gives the buffers the values that they had."""
        with self.torch.no_grad():
            for name, buffer in self.module.named_buffers():
                if name in self.buffers:
                    buffer.copy_(self.buffers[name])

    def _array(self, gradient: Any, parameter: Any) -> np.ndarray:
        if gradient is None:
            return np.zeros(tuple(parameter.shape))
        return gradient.detach().double().cpu().numpy()

    @contextmanager
    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> Iterator[None]:
        """Lets the parameters be others for a while."""
        before = {name: p.detach().clone() for name, p in self.parameters.items()}
        with self.torch.no_grad():
            for p in self.parameters.values():
                p.copy_(self.torch.from_numpy(np.asarray(move(p.numpy()))))
        try:
            yield
        finally:
            with self.torch.no_grad():
                for name, p in self.parameters.items():
                    p.copy_(before[name])


class _Batches:
    """Micro-batches, as a loader has them: a length, and (x, y) one after the other."""

    def __init__(self, batches: Callable[[], Iterator], n: int) -> None:
        self._batches, self._n = batches, n

    def __iter__(self) -> Iterator:
        return self._batches()

    def __len__(self) -> int:
        return self._n


def _as_torch_takes(values: np.ndarray) -> np.ndarray:
    return np.array(values, np.int64) if values.dtype.kind in "iu" else np.array(values)


def _keeper(verified: TorchStep, earlier: tuple[int, ...]) -> Any:
    """Returns an optimizer of PyTorch's kind that keeps what its step() is given and moves nothing."""
    torch = verified.torch

    class Keeper(torch.optim.Optimizer):
        def __init__(self) -> None:
            super().__init__(list(verified.parameters.values()), {"lr": 0.0})
            self.updates: list[Update] = []
            self.handed: list[int] = []
            self._start = 0

        def step(self, closure: Any = None) -> Any:
            loss = None if closure is None else closure()
            gradients = [verified._array(p.grad, p) for p in verified.parameters.values()]
            before = (*earlier, *self.handed[: self._start])
            self.updates.append(Update(gradients, tuple(self.handed[self._start :]), before))
            self._start = len(self.handed)
            return loss

    return Keeper()


@contextmanager
def _no_dropout(verified: TorchStep) -> Iterator[None]:
    """Lets every kind of dropout give what it is given, wherever it is called."""
    kind = needed("torch.overrides", "verifying a PyTorch step").TorchFunctionMode  # untyped where it is not installed

    class Mode(kind):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = dict(kwargs or {})
            name = getattr(func, "__name__", "")
            if name in _DROPS:
                verified.dropped = True
                return args[0] if args else kwargs["input"]
            if name == "scaled_dot_product_attention" and kwargs.get("dropout_p"):
                verified.dropped, kwargs["dropout_p"] = True, 0.0
            return func(*args, **kwargs)

    with Mode():
        yield


def n_arguments(step: Any, name: str) -> int:
    """Returns how many arguments a step takes: 3 or 4.

    Raises:
        SettingsError: it is no function, or takes another number.

    Example:
        >>> n_arguments(lambda model, optimizer, x, y: None, "step")
        4
    """
    wanted = (
        "write it as step(model, optimizer, x, y) for one batch, which it cuts itself, or as "
        "train(model, optimizer, batches), which loops over micro-batches (x, y)."
    )
    if not callable(step) or isinstance(step, type):
        raise SettingsError(f"{name} is no function; {wanted}")
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature: Any = inspect.signature(step)
    given = [p for p in signature.parameters.values() if p.kind in kinds and p.default is p.empty]
    if len(given) not in (3, 4):
        raise SettingsError(f"{name} takes {len(given)} arguments without a default; {wanted}")
    return len(given)


def torch_module_of(model: Any, input_shape: tuple[int, ...], n_outputs: int, seed: int) -> Any:
    """Returns a copy of the PyTorch module that a user's value stands for.

    Raises:
        SettingsError: it is none.
        MissingExtraError: PyTorch is not installed.
    """
    torch = needed("torch", "verifying a PyTorch step")
    made = model.load() if isinstance(model, OwnCode) else model
    if callable(made) and not isinstance(made, torch.nn.Module):
        name = str(model) if isinstance(model, OwnCode) else None
        made = made_by(made, jax.random.key(seed), input_shape, n_outputs, name)
    if not isinstance(made, torch.nn.Module):
        raise SettingsError(
            f"also='torch' needs a model of PyTorch, not {model!s}; give the module that the step trains, on the "
            "command line as --model net.py:Net."
        )
    module: Any = copy.deepcopy(made)
    if not any(p.requires_grad for p in module.parameters()):
        raise SettingsError(f"the PyTorch model {type(module).__name__} has no parameter that is trained.")
    return module
