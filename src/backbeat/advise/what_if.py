"""A machine that is not here, as seconds per update over the batch size: α + β M, and what several devices add up.

Several devices share a batch: each computes M/n of its examples, then all add up their gradients of N numbers, which
in a ring takes 2 (n − 1)/n · 4 N bytes over each link (Patarasuk & Yuan 2009). How fast the links are is not measured
here: without `bandwidth` the adding up is left out, so that the time is the least that it can be.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import SettingsError
from ..report.style import duration

_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "µs": 1e6, "μs": 1e6, "ns": 1e9}  # how many make a second
_BYTES = {"B/s": 1.0, "KB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9, "TB/s": 1e12}
_NUMBER = r"\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*"
_ALLOWED = 'give for example "alpha=20us,beta=0.1us", and with several devices also "bandwidth=10GB/s"'


@dataclass(frozen=True)
class HardwareModel:
    """What an update takes on a machine that is not here.

    Attributes:
        alpha: α, seconds of an update however few examples it has.
        beta: β, seconds that each example adds.
        bandwidth: bytes per second between two devices; None: not known.
    """

    alpha: float | None
    beta: float | None
    bandwidth: float | None = None

    def seconds(self, batch_size: float) -> float:
        """Returns α + β M.

        Example:
            >>> HardwareModel(1e-3, 1e-6).seconds(500)
            0.0015
        """
        assert self.alpha is not None
        assert self.beta is not None
        return self.alpha + self.beta * batch_size

    def __str__(self) -> str:
        words = [] if self.alpha is None or self.beta is None else [f"α = {duration(self.alpha)}"]
        words += [f"β = {duration(self.beta)} an example"] if self.beta is not None else []
        words += [] if self.bandwidth is None else [f"{self.bandwidth / 1e9:.3g} GB/s between devices"]
        return ", ".join(words)


def parse_hardware(text: str) -> HardwareModel:
    """Returns a machine as a person writes it.

    Args:
        text: α and β with units s, ms, us or ns; with a bandwidth, or only that, for this machine several times.

    Raises:
        SettingsError: a text that is not understood.

    Example:
        >>> parse_hardware("alpha=20us, beta=0.5us")
        HardwareModel(alpha=2e-05, beta=5e-07, bandwidth=None)
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        name = name.strip()
        units = _BYTES if name == "bandwidth" else _UNITS
        match = re.fullmatch(_NUMBER + r"(\S+)\s*", value)
        number = _float(match[1]) if match else None
        if name not in ("alpha", "beta", "bandwidth") or name in found or not equals:
            raise SettingsError(f"hardware={text!r}: {part.strip()!r} is not one of its parts; {_ALLOWED}.")
        if number is None or match is None or match[2] not in units:
            raise SettingsError(f"hardware={text!r}: {value.strip()!r} is not a number with a unit; {_ALLOWED}.")
        found[name] = number * units[match[2]] if name == "bandwidth" else number / units[match[2]]  # 20us is 2e-05
    if ("alpha" in found) != ("beta" in found):
        raise SettingsError(f"hardware={text!r} has one of alpha and beta without the other; {_ALLOWED}.")
    if not math.isfinite(sum(found.values())) or ("alpha" in found and not found["alpha"] + found["beta"] > 0):
        raise SettingsError(f"hardware={text!r}: an update takes no time, or forever; {_ALLOWED}.")
    if found.get("bandwidth") == 0:
        raise SettingsError(f"hardware={text!r}: with a bandwidth of 0 nothing arrives; {_ALLOWED}.")
    return HardwareModel(found.get("alpha"), found.get("beta"), found.get("bandwidth"))


def on_devices(
    seconds: Callable[[float], float], devices: int, n_parameters: int, bandwidth: float | None
) -> Callable[[float], float]:
    """Returns seconds per update over the batch size with several devices that share each batch.

    Args:
        seconds: of one device, over the examples that it computes.
        devices: n.
        n_parameters: N.
        bandwidth: bytes per second between two devices; None: adding up takes no time.

    Example:
        >>> shared = on_devices(lambda m: 1e-3 + 1e-6 * m, 8, 1000, 1e9)
        >>> f"{shared(800):.7f}"
        '0.0011070'
    """
    adding = 0.0 if bandwidth is None else 2 * (devices - 1) / devices * 4 * n_parameters / bandwidth
    return lambda batch_size: seconds(max(1.0, math.ceil(batch_size / devices))) + adding


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
