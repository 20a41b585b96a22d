"""Per-example losses ℓ_i(θ): one value and one count for each example of a batch.

The loss of a batch is Σ w ℓ / Σ w. An example may hold several counted elements (tokens, pixels, labels): it then gives
the sum of their losses and their number, and Σ runs over elements. Ignored labels count 0, class weights multiply both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from .errors import SettingsError, nearest
from .types import PerExample

Kind = Literal["classification", "binary", "regression", "other"]


class ExampleLosses(NamedTuple):
    """What a loss gives for a batch.

    Attributes:
        total: `[batch]`, the loss of each example, summed over its counted elements.
        count: `[batch]`, how many elements count, each with its class weight; None where each example counts 1.
    """

    total: PerExample
    count: PerExample | None = None  # pyright: ignore[reportIncompatibleMethodOverride]  # hides tuple.count, which counts


@dataclass(frozen=True)
class Loss:
    """A per-example loss: `function(prediction, label)`, a name and what kind of labels it is for."""

    name: str
    function: Callable[[Array, Array], Any]
    kind: Kind
    ignore: int | None = None

    def __call__(self, prediction: Array, label: Array) -> ExampleLosses:
        """Returns the losses of a batch; refuses a user's function that does not give one for each example."""
        losses = self.function(prediction, label)
        if not isinstance(losses, ExampleLosses):
            losses = ExampleLosses(*losses) if isinstance(losses, tuple) else ExampleLosses(losses)
        for name, value in losses._asdict().items():
            if value is not None and jnp.shape(value) != prediction.shape[:1]:
                raise SettingsError(
                    f"loss {self.name!r} gave a {name} of shape {list(jnp.shape(value))} for a batch of "
                    f"{prediction.shape[0]}; a loss gives one value for each example, [batch], not a mean."
                )
        return losses

    @property
    def options(self) -> dict[str, Any]:
        """What was chosen beside the name, such as `{"ignore": -1}`."""
        return getattr(self.function, "options", dict)()

    def __str__(self) -> str:
        return ":".join([self.name, *(f"{name}={_plainly(value)}" for name, value in self.options.items())])


def _plainly(value: Any) -> str:
    return ",".join(f"{each:g}" for each in (value if isinstance(value, tuple) else (value,)))


def _same_shape(name: str, prediction: Array, label: Array) -> Array:
    """Returns the predictions in the labels' shape: `[batch, 1]` for labels `[batch]` is the only difference allowed.

    Without this, [batch, 1] − [batch] would broadcast to [batch, batch] and train towards the mean.
    """
    if prediction.ndim == label.ndim + 1 and prediction.shape[-1] == 1:
        prediction = prediction[..., 0]
    if prediction.shape != label.shape:
        raise SettingsError(
            f"{name} got predictions of shape {list(prediction.shape)} for labels of shape {list(label.shape)}; "
            "they must be alike, one prediction for each label."
        )
    return prediction


def _squared_error(prediction: Array, label: Array) -> ExampleLosses:
    prediction = _same_shape("squared_error", prediction, label)
    error = prediction - label.astype(prediction.dtype)
    return ExampleLosses(0.5 * jnp.sum(error**2, axis=tuple(range(1, error.ndim))))


def squared_error() -> Loss:
    """Returns ½‖f(x) − y‖², summed over the outputs of an example; its gradient by f(x) is the residual f(x) − y.

    The mean squared error that is reported as `mse` is another number: the mean of (f(x) − y)² over examples *and*
    outputs, without the ½.

    Example:
        >>> import jax.numpy as jnp
        >>> squared_error()(jnp.array([[1.0], [3.0]]), jnp.array([0.0, 0.0])).total.tolist()
        [0.5, 4.5]
    """
    return _SQUARED_ERROR


_SQUARED_ERROR = Loss("squared_error", _squared_error, "regression")


@dataclass(frozen=True)
class _CrossEntropy:
    ignore: int | None
    class_weight: tuple[float, ...] | None

    def options(self) -> dict[str, Any]:
        given = {"ignore": self.ignore, "class_weight": self.class_weight}
        return {name: value for name, value in given.items() if value is not None}

    def __call__(self, prediction: Array, label: Array) -> ExampleLosses:
        if self.class_weight is not None and len(self.class_weight) != prediction.shape[-1]:
            raise SettingsError(
                f"class_weight has {len(self.class_weight)} weights but the predictions have {prediction.shape[-1]} "
                "classes; give one weight for each class."
            )
        log_z = jax.nn.logsumexp(prediction, axis=-1)
        if label.ndim == prediction.ndim and jnp.issubdtype(label.dtype, jnp.floating):
            return self._soft(prediction, label, log_z)
        if label.ndim != prediction.ndim - 1 or not jnp.issubdtype(label.dtype, jnp.integer):
            raise SettingsError(
                f"cross_entropy got {label.dtype} labels of shape {list(label.shape)} for predictions of shape "
                f"{list(prediction.shape)}; give one integer for each prediction, or soft labels of the predictions' "
                "shape."
            )
        counted = None if self.ignore is None else (label != self.ignore)
        safe = label if counted is None else jnp.where(counted, label, 0)
        # a comparison and not an index: its gradient is a choice, where an index's is a scatter, 5 % of M = 1
        own = lax.broadcasted_iota(safe.dtype, prediction.shape, prediction.ndim - 1) == safe[..., None]
        element = log_z - jnp.where(own, prediction, 0).sum(axis=-1)
        weight = None if self.class_weight is None else jnp.asarray(self.class_weight, element.dtype)[safe]
        if counted is not None:
            weight = counted.astype(element.dtype) * (1 if weight is None else weight)
        return _sum_elements(element, weight)

    def _soft(self, prediction: Array, label: Array, log_z: Array) -> ExampleLosses:
        each = label * (log_z[..., None] - prediction)
        if self.class_weight is None:
            return _sum_elements(each.sum(axis=-1), None)
        weight = jnp.asarray(self.class_weight, prediction.dtype)
        total, count = (each * weight).sum(axis=-1), (label * weight).sum(axis=-1)
        axes = tuple(range(1, total.ndim))
        return ExampleLosses(total.sum(axis=axes), count.sum(axis=axes))


def _sum_elements(element: Array, weight: Array | None) -> ExampleLosses:
    """Returns the sums over an example's elements, with count None where each example is one element of weight 1."""
    axes = tuple(range(1, element.ndim))
    if weight is not None:
        # where, not only times: an ignored element must not turn 0 · inf into NaN
        return ExampleLosses(jnp.where(weight > 0, element * weight, 0).sum(axis=axes), weight.sum(axis=axes))
    if not axes:
        return ExampleLosses(element)
    elements = element.size // element.shape[0]
    return ExampleLosses(element.sum(axis=axes), jnp.full(element.shape[:1], elements, element.dtype))


def cross_entropy(*, ignore: int | None = None, class_weight: Sequence[float] | None = None) -> Loss:
    """Returns the cross-entropy of a softmax, −log p(label): predictions are logits `[batch, ..., classes]`.

    Args:
        ignore: a label that counts nothing, for example −1 for padding.
        class_weight: one weight for each class; the loss is the weighted mean (as PyTorch's), Σ w ℓ / Σ w.

    Labels are integers `[batch, ...]` or soft labels `[batch, ..., classes]` of floats.

    Raises:
        SettingsError: class weights that are negative or all 0; later, too few of them, labels of the wrong shape.

    Example:
        >>> import jax.numpy as jnp
        >>> cross_entropy(ignore=-1)(jnp.zeros((2, 3, 4)), jnp.array([[0, 1, -1], [2, -1, -1]])).count.tolist()
        [2.0, 1.0]
    """
    weights = None if class_weight is None else tuple(float(w) for w in class_weight)
    if weights is not None and not (all(w >= 0 for w in weights) and any(weights)):
        raise SettingsError(
            f"class_weight={class_weight!r} must be 0 or more for each class, and more than 0 for at least one."
        )
    return Loss("cross_entropy", _CrossEntropy(ignore, weights), "classification", ignore)


@dataclass(frozen=True)
class _BinaryCrossEntropy:
    positive_weight: float

    def options(self) -> dict[str, Any]:
        return {} if self.positive_weight == 1 else {"positive_weight": self.positive_weight}

    def __call__(self, prediction: Array, label: Array) -> ExampleLosses:
        logit = _same_shape("binary_cross_entropy", prediction, label)
        label = label.astype(logit.dtype)
        element = jax.nn.softplus(logit) - label * logit
        weight = None if self.positive_weight == 1 else 1 + (self.positive_weight - 1) * label
        return _sum_elements(element, weight)


def binary_cross_entropy(*, positive_weight: float = 1.0) -> Loss:
    """Returns −y log σ(z) − (1 − y) log(1 − σ(z)) for logits z: `[batch]` or `[batch, 1]`, or `[batch, labels]`.

    Args:
        positive_weight: the weight of the class 1, in the sum and in the count.

    Raises:
        SettingsError: a weight that is not more than 0.

    Example:
        >>> import jax.numpy as jnp
        >>> binary_cross_entropy()(jnp.zeros((2, 1)), jnp.array([0, 1])).total.round(4).tolist()
        [0.6930999755859375, 0.6930999755859375]
    """
    if not positive_weight > 0:
        raise SettingsError(f"positive_weight={positive_weight!r} must be more than 0.")
    return Loss("binary_cross_entropy", _BinaryCrossEntropy(float(positive_weight)), "binary")


LOSSES: dict[str, Callable[..., Loss]] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "squared_error": squared_error,
}


_ALSO_CALLED = {  # elsewhere; what is meant is suggested
    "mse": "squared_error", "l2": "squared_error", "bce": "binary_cross_entropy", "logistic": "binary_cross_entropy",
    "ce": "cross_entropy", "nll": "cross_entropy", "log_loss": "cross_entropy", "softmax": "cross_entropy",
}  # fmt: skip


def loss_for(loss: str | Loss | Callable) -> Loss:
    """Returns the loss that a user's value stands for: a name, a loss, or a function (prediction, label) -> `[batch]`.

    A name may have options, "cross_entropy:ignore=-1", "cross_entropy:class_weight=1,4" or
    "binary_cross_entropy:positive_weight=3"; the text of a loss, `str(loss)`, is read back equal.

    A function may also give a pair (total, count), both `[batch]`, where an example has several counted elements.

    Raises:
        SettingsError: an unknown name, with the nearest one, or an unknown option.

    Example:
        >>> loss_for("squared_error").kind
        'regression'
        >>> loss_for("cross_entropy:ignore=-1") == cross_entropy(ignore=-1)
        True
    """
    if isinstance(loss, Loss):
        return loss
    if callable(loss):
        return Loss(getattr(loss, "__name__", "own loss"), loss, "other")
    name, *options = loss.split(":") if isinstance(loss, str) else [loss]
    if not isinstance(name, str) or name not in LOSSES:
        raise SettingsError(f"loss={loss!r} is not known; {nearest(_ALSO_CALLED.get(str(name), name), LOSSES)}")
    return LOSSES[name](**dict(_option(str(loss), name, option) for option in options))


def _option(loss: str, name: str, text: str) -> tuple[str, Any]:
    """Returns an option of a loss from its text, such as ("ignore", -1)."""
    option, _, value = text.partition("=")
    kinds = {"ignore": int, "class_weight": lambda text: tuple(map(float, text.split(","))), "positive_weight": float}
    known = {"cross_entropy": ("ignore", "class_weight"), "binary_cross_entropy": ("positive_weight",)}.get(name, ())
    if option not in known:
        raise SettingsError(
            f"loss={loss!r}: {text!r} is not understood; options of {name}: {', '.join(known) or 'none'}."
        )
    try:
        return option, kinds[option](value)
    except ValueError:
        raise SettingsError(
            f"loss={loss!r}: {value!r} is no value for {option}; write for example cross_entropy:ignore=-1, "
            "cross_entropy:class_weight=1,4 or binary_cross_entropy:positive_weight=3."
        ) from None
