"""The per-example losses of backbeat on PyTorch's tensors: what a PyTorch step's loss is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import SettingsError
from ..losses import Loss
from ..models.refusal import explain


def torch_losses(torch: Any, loss: Loss) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Returns (prediction, label) -> (total `[batch]`, count `[batch]` or None), as `loss` has them.

    A function of the user's own is called as it is, with tensors.

    Raises:
        SettingsError: when it is called, if the function does not work on tensors.

    Example:
        >>> from backbeat.losses import squared_error
        >>> callable(torch_losses(None, squared_error()))
        True
    """
    named = {"cross_entropy": _cross_entropy, "binary_cross_entropy": _binary, "squared_error": _squared}
    if loss.name in named and loss.kind != "other":
        return lambda prediction, label: named[loss.name](torch, loss, prediction, label)
    return lambda prediction, label: _own(torch, loss, prediction, label)


def _own(torch: Any, loss: Loss, prediction: Any, label: Any) -> tuple[Any, Any]:
    try:
        found = loss.function(prediction, label)
    except Exception as error:  # a function of the user's own may raise anything
        raise SettingsError(
            f"{explain(error, f'the loss {loss}')[:-1]}; for a PyTorch step give one that takes tensors, as step_loss= "
            "or --step-loss file.py:name."
        ) from error
    total, count = found if isinstance(found, tuple) else (found, None)
    for value in (total, count):
        if value is not None and (not isinstance(value, torch.Tensor) or value.shape != prediction.shape[:1]):
            shape = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise SettingsError(
                f"the loss {loss} gave {shape} for a batch of {len(prediction)}; it must give one loss for each "
                "example, [batch], as PyTorch's losses do with reduction='none'."
            )
    return total, count


def _alike(prediction: Any, label: Any) -> Any:
    if prediction.ndim == label.ndim + 1 and prediction.shape[-1] == 1:
        prediction = prediction[..., 0]
    if prediction.shape != label.shape:
        raise SettingsError(
            f"the PyTorch model gives {list(prediction.shape)} for labels of shape {list(label.shape)}; they must be "
            "alike, one prediction for each label."
        )
    return prediction


def _squared(torch: Any, loss: Loss, prediction: Any, label: Any) -> tuple[Any, Any]:
    error = _alike(prediction, label) - label
    return 0.5 * (error**2).reshape(len(error), -1).sum(dim=1), None


def _binary(torch: Any, loss: Loss, prediction: Any, label: Any) -> tuple[Any, Any]:
    logit, label = _alike(prediction, label), label.to(prediction.dtype)
    element = torch.nn.functional.softplus(logit) - label * logit
    positive = loss.options.get("positive_weight")
    return _summed(element, None if positive is None else 1 + (positive - 1) * label)


def _cross_entropy(torch: Any, loss: Loss, prediction: Any, label: Any) -> tuple[Any, Any]:
    options = loss.options
    if label.is_floating_point():
        each = -label * prediction.log_softmax(-1)
        if "class_weight" not in options:
            return _summed(each.sum(-1), None)
        weight = torch.tensor(options["class_weight"], dtype=each.dtype)
        total, count = (each * weight).sum(-1), (label * weight).sum(-1)
        return total.reshape(len(label), -1).sum(1), count.reshape(len(label), -1).sum(1)
    if prediction.shape[:-1] != label.shape and prediction.ndim == label.ndim + 1:
        prediction = prediction.movedim(1, -1)  # PyTorch's own order: [batch, classes, ...]
    if prediction.shape[:-1] != label.shape:
        raise SettingsError(
            f"the PyTorch model gives {list(prediction.shape)} for labels of shape {list(label.shape)}; cross_entropy "
            "takes one row of classes for each label."
        )
    counted = label != options.get("ignore", -1 - int(label.abs().max()))
    safe = torch.where(counted, label, 0)
    element = -prediction.log_softmax(-1).gather(-1, safe[..., None])[..., 0]
    weight = torch.tensor(options["class_weight"], dtype=element.dtype)[safe] if "class_weight" in options else None
    if "ignore" in options:
        weight = counted.to(element.dtype) * (1 if weight is None else weight)
    return _summed(element, weight)


def _summed(element: Any, weight: Any) -> tuple[Any, Any]:
    rows = element.reshape(len(element), -1)
    if weight is not None:
        weight = weight.reshape(rows.shape)
        return (rows * weight).sum(1), weight.sum(1)
    return rows.sum(1), None if element.ndim == 1 else rows.new_full((len(rows),), rows.shape[1])
