"""Why a model of the user's own cannot be used, in one sentence: what other libraries raise, translated.

A library's own message is kept where it is the best there is, with the line of the user's code that caused it.
"""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

_LIBRARIES = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_NOT_THEIRS = (*(Path(folder).resolve() for folder in _LIBRARIES), Path(__file__).resolve().parents[1])


def explain(error: BaseException, model: Any, shape: tuple[int, ...] | None = None) -> str:
    """Returns a sentence on why a model cannot be applied: what it does, where, and what to do instead.

    Args:
        error: what came out of the model's forward pass, or of tracing it.
        model: what `str` names in the sentence.
        shape: the shape of the inputs `[batch, ...]`, where known.

    Example:
        >>> explain(TypeError("dot_general requires equal sizes, got (4,) and (3,)"), "PyTorch Net", (2, 4))
        'PyTorch Net cannot be applied to inputs of shape [2, 4]: dot_general requires equal sizes, got (4,) and (3,).'
    """
    error = next((one for one in _chain(error) if isinstance(one, _BY_VALUE)), error)  # Keras raises others over it
    text, at = str(error), place_of(error)
    where = f" ({at})" if at else ""
    if isinstance(error, _BY_VALUE) or "Boolean value of Tensor" in text:
        return (
            f"{model} decides by the values in an array while it runs{where}, which a compiled program cannot: it is "
            "traced once for all values; choose between values with torch.where or jax.numpy.where instead of if, "
            "while, int(...) or .item()."
        )
    if isinstance(error, jax.errors.UnexpectedTracerError):
        return (
            f"{model} keeps an array of one call for a later one{where}; compute it in each call, or before training."
        )
    if "Expect a Tensor or a View" in text:
        return (
            f"{model} computes with a tensor that is neither a parameter nor a buffer of it{where}, such as one in a "
            "list or of the file; register it with register_buffer or nn.ParameterList, or make it in forward."
        )
    if type(error).__name__ == "OperatorNotFound":
        return (
            f"{model} uses an operation that torchax cannot translate{where}: {one_line(error)}; write it another way."
        )
    if "[JAX RNG]" in text:
        return (
            f"{model} draws random numbers without a seed{where}; give the layer a keras.random.SeedGenerator as an "
            "attribute and pass it as seed=."
        )
    if "requires a key" in text:
        return f"{model} needs a random key in training but takes none{where}; give its __call__ an argument key=None."
    on = "" if shape is None else f" to inputs of shape {list(shape)}"
    return f"{model} cannot be applied{on}: {one_line(error)}{where}."


_BY_VALUE = (
    jax.errors.ConcretizationTypeError,  # if, while, int(...): TracerBoolConversionError is one of these
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


def changes(model: Any, what: str) -> str:
    """Returns the sentence for a model that writes to what it keeps: a compiled update would lose it.

    Example:
        >>> changes("PyTorch Net", "mean").partition(";")[0]
        'PyTorch Net changes mean while it runs, which no update would keep'
    """
    return (
        f"{model} changes {what} while it runs, which no update would keep; what is carried from batch to batch cannot "
        "be trained exactly: return it, make it anew in each call, or put its layer into evaluation mode."
    )


def draws(model: Any, only_if: str) -> str:
    """Returns the sentence for a model that is random in evaluation mode too.

    Example:
        >>> draws("PyTorch Net", "if self.training").rpartition("; ")[2]
        'draw them only if self.training.'
    """
    return (
        f"{model} draws random numbers in evaluation mode too, so its predictions would have no one value; draw them "
        f"only {only_if}."
    )


def mixes(model: Any, layer: str, frozen: str, instead: str) -> str:
    """Returns the sentence for batch normalisation: why it is refused, how to freeze it, and what to use instead.

    Example:
        >>> mixes("PyTorch Net", "1 (BatchNorm1d)", "call .eval() on it", "nn.GroupNorm").rpartition("; ")[2]
        'call .eval() on it to keep the statistics that it has, or use nn.GroupNorm instead.'
    """
    return (
        f"{model}: {layer} normalises by the statistics of the batch, so an example's loss depends on the others in "
        f"its batch; {frozen} to keep the statistics that it has, or use {instead} instead."
    )


def one_line(error: BaseException, *, kind: bool = False) -> str:
    """Returns an error's own words in one line, without a full stop; with its kind where asked or needed.

    Example:
        >>> one_line(KeyError("width")), one_line(ValueError("no width.")), one_line(ZeroDivisionError())
        ("KeyError: 'width'", 'no width', 'ZeroDivisionError')
    """
    lines = [re.sub("\x1b[^m]*m", "", line).strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith("Exception encountered when calling")]  # Keras's
    name = type(error).__name__
    if not lines:
        return name
    words = lines[0].rstrip(".:")
    needed = isinstance(error, (KeyError, AttributeError, NameError)) or " " not in words
    return f"{name}: {words}" if kind or needed else words


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and those during which it was raised."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def place_of(error: BaseException, folder: Path | None = None) -> str:
    """Returns the user's own line that an error came from, as "net.py, line 12"; "" where none is known.

    Args:
        error: with its traceback.
        folder: look only at files in there; None for all but those of libraries.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}"
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        name = frame.f_code.co_filename
        if folder is not None and not Path(name).resolve().is_relative_to(folder):
            continue
        if folder is not None or is_theirs(name):
            return f"{Path(name).name}, line {line}"
    return ""


def is_theirs(filename: str) -> bool:
    """Returns whether a file is the user's own: no library's, and none of ours.

    Example:
        >>> is_theirs("net.py"), is_theirs(traceback.__file__)
        (True, False)
    """
    if filename.startswith("<"):
        return filename.startswith(("<stdin>", "<ipython", "<string>"))
    return not any(Path(filename).resolve().is_relative_to(folder) for folder in _NOT_THEIRS)
