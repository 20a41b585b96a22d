"""Models as text, the same on the command line and in a run's settings: `mlp:128,64`, `cnn:16,32`, `net.py:Net`."""

from __future__ import annotations

import re
from typing import Any

from ..errors import SettingsError, nearest
from .cnn import cnn
from .dense import ACTIVATIONS, linear, mlp
from .own_code import OwnCode

_EXAMPLE = "for example mlp, mlp:128,64, mlp:32:tanh, linear, cnn, cnn:16,32 or file.py:name"


def parse_model(text: str) -> Any:
    """Returns the network that a text names; the text form of a network, `str(mlp(...))`, is read back equal.

    After the name, separated by colons: the widths; an activation; "nobias"; for a cnn "kernel5". Or `file.py:name`, a
    model in a file of the user's own, which is run when the model meets the data.

    Raises:
        SettingsError: an unknown name or option, with the nearest one.

    Example:
        >>> str(parse_model("mlp:128,64:tanh"))
        'mlp:128,64:tanh'
        >>> parse_model("linear") == linear()
        True
    """
    if ".py:" in text:
        return OwnCode.of(text)
    name, *options = [part.strip() for part in text.strip().lower().split(":")]
    if name not in ("mlp", "linear", "cnn"):
        raise SettingsError(f"model={text!r} is not known; {nearest(name, ['mlp', 'linear', 'cnn'])} Write {_EXAMPLE}.")
    found: dict[str, Any] = {}
    for option in options:
        if re.fullmatch(r"[0-9]+(,[0-9]+)*", option) and name != "linear":
            found["hidden" if name == "mlp" else "channels"] = tuple(int(width) for width in option.split(","))
        elif option in ACTIVATIONS and name != "linear":
            found["activation"] = option
        elif option == "nobias" and name != "cnn":
            found["bias"] = False
        elif re.fullmatch(r"kernel[0-9]+", option) and name == "cnn":
            found["kernel"] = int(option.removeprefix("kernel"))
        else:
            raise SettingsError(f"model={text!r}: {option!r} is not understood; write {_EXAMPLE}.")
    return {"mlp": mlp, "linear": linear, "cnn": cnn}[name](**found)
