"""PyTorch modules, traced into JAX by torchax: forward and backward are compiled, PyTorch computes nothing.

The user's module is only read. What is traced is a copy of it whose tensors have no memory, made anew for each trace,
and the weights are passed in; so nothing that forward keeps in the module can leak.
Inputs go in as they are: images channels first, as PyTorch's layers want them.
"""

from __future__ import annotations

import copy
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..errors import SettingsError
from .adapted import Adapted, Parts, Read, Weights, adapted, digest, plain_attributes
from .refusal import changes, mixes
from .source import Source, needed

_WHILE_TRACING = threading.RLock()  # torchax switches a mode on that all threads share


def torch_model(source: Source) -> Adapted:
    """Returns the model of a PyTorch module; its weights are named as in its `state_dict`.

    Frozen parameters (`requires_grad=False`) and buffers stay as they are; tied weights are one. Training uses the mode
    in which each layer is, so after `.eval()` a dropout layer drops nothing; evaluation puts all layers in `.eval()`.

    Raises:
        MissingExtraError: torchax is not installed.
        SettingsError: batch normalisation in training mode, weights that are not float32, a module that was never
            called or that changes its buffers in training.
    """
    torch = needed("torch", "a PyTorch model")
    environment = needed("torchax", "a PyTorch model").default_env()
    module = source.first
    name = source.name or f"PyTorch {type(module).__name__}"
    _refuse(torch, module, name)
    kept = {n: tensor for n, tensor in _tensors(torch, module).items() if not _trains(torch, tensor)}
    fixed = {n: jnp.asarray(_as_array(torch, tensor, f"{name}: {n}")) for n, tensor in kept.items()}
    training = _hollow(torch, module)
    modes = {True: training, False: copy.deepcopy(training).eval()}

    def run(params: Weights, x: Array, key: Array, training: bool) -> Any:
        # torchax promotes as PyTorch does, by JAX's standard rules
        with _WHILE_TRACING, jax.numpy_dtype_promotion("standard"):
            return _call(torch, environment, copy.deepcopy(modes[training]), {**fixed, **params}, x, key, name)

    def write(one: Any, params: Weights) -> Any:
        return _write(torch, one, params)

    mode = tuple((path, type(layer).__qualname__, plain_attributes(layer)) for path, layer in module.named_modules())
    return adapted(source, Parts(name, lambda one: _read(torch, one), run, write, mode, "if self.training"))


def _call(torch: Any, environment: Any, module: Any, arrays: Weights, x: Array, key: Array, name: str) -> Any:
    """Returns what a module gives with these tensors; refuses one that changes them."""
    given = environment.j2t_iso(arrays)
    found: dict[str, Any] = {}
    module.register_forward_hook(lambda module, *_: found.update(_tensors(torch, module)))
    with environment, environment.override_property(prng=key):
        out = torch.func.functional_call(module, given, (environment.j2t_iso(x),))
    changed = [n for n, t in given.items() if found.get(n) is not t or t.jax() is not arrays[n]]
    if changed:
        raise SettingsError(changes(name, changed[0]))
    return environment.t2j_iso(out)


def _refuse(torch: Any, module: Any, name: str) -> None:
    """Refuses what cannot be trained, or not exactly."""
    for path, layer in module.named_modules():
        if not isinstance(layer, torch.nn.modules.batchnorm._NormBase):  # of batch and instance normalisation
            continue
        what, tracks = f"{path or 'it'} ({type(layer).__name__})", layer.running_mean is not None
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            if layer.training or not tracks:
                frozen = "call .eval() on it" if tracks else "let it track_running_stats, then call .eval() on it,"
                raise SettingsError(mixes(name, what, frozen, "nn.GroupNorm or nn.LayerNorm"))
        elif layer.training and tracks:
            raise SettingsError(changes(name, f"the running statistics of {what}"))
    for path, tensor in _tensors(torch, module).items():
        if torch.nn.parameter.is_lazy(tensor):
            raise SettingsError(f"{name}: the shape of {path} is not known yet; call the module once on a batch first.")
        if tensor.device.type == "meta":
            raise SettingsError(f"{name}: {path} is on the device meta and has no values; load its weights first.")
        if (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype != torch.float32:
            raise SettingsError(
                f"{name}: {path} is {str(tensor.dtype).removeprefix('torch.')}, but backbeat trains in float32; call "
                ".float() on the module."
            )


def _tensors(torch: Any, module: Any) -> dict[str, Any]:
    """Returns all tensors of a module by name, tied ones once: parameters, buffers and those that are attributes."""
    found = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    known = {id(tensor) for tensor in found.values()}
    for path, layer in module.named_modules():
        for name, value in vars(layer).items():
            if isinstance(value, torch.Tensor) and id(value) not in known:
                found[f"{path}.{name}" if path else name] = value
                known.add(id(value))
    return found


def _trains(torch: Any, tensor: Any) -> bool:
    return isinstance(tensor, torch.nn.Parameter) and tensor.requires_grad


def _hollow(torch: Any, module: Any) -> Any:
    """Returns a copy of a module whose tensors have no memory; tensors that were plain attributes are buffers of it."""
    memo: dict[int, Any] = {}
    for tensor in _tensors(torch, module).values():
        empty = torch.empty_like(tensor, device="meta", requires_grad=False)
        if isinstance(tensor, torch.nn.Parameter):
            empty = torch.nn.Parameter(empty, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = empty
    hollow = copy.deepcopy(module, memo)
    for layer in hollow.modules():
        for name, value in list(vars(layer).items()):
            if isinstance(value, torch.Tensor):
                delattr(layer, name)
                layer.register_buffer(name, value, persistent=False)
    return hollow


def _as_array(torch: Any, tensor: Any, what: str) -> np.ndarray:
    """Returns a copy of a tensor's values; whole numbers as int32, which JAX computes with."""
    array = np.array(tensor.detach().cpu().numpy())
    if array.dtype != np.int64:
        return array
    if array.size and max(-int(array.min()) - 1, int(array.max())) >= 2**31:
        raise SettingsError(
            f"{what} holds whole numbers beyond 32 bits, which JAX does not compute with; rescale them."
        )
    return array.astype(np.int32)


def _read(torch: Any, module: Any) -> Read:
    tensors = _tensors(torch, module)
    weights = {n: jnp.asarray(_as_array(torch, t, n)) for n, t in tensors.items() if _trains(torch, t)}
    return Read(weights, digest((n, _as_array(torch, t, n)) for n, t in tensors.items() if not _trains(torch, t)))


def _write(torch: Any, module: Any, params: Weights) -> Any:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in params:
                parameter.copy_(torch.from_numpy(np.array(params[name])))
    return module
