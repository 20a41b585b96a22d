"""What if: the quickest batch size on a machine that is not here, computed from what was measured here.

The updates to the target do not depend on the machine, so S(M) as measured, or as fitted between what was measured, is
multiplied with another machine's t(M). Nothing of it is a measurement, and each sentence says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..compare.critical import CriticalFit, Interval
from ..errors import SettingsError
from ..report.style import count, duration
from .hardware import HardwareCurve
from .search import Sized
from .what_if import HardwareModel, on_devices, parse_hardware

_MOST_DEVICES = 1 << 20


@dataclass(frozen=True)
class Elsewhere:
    """A machine that is not here.

    Attributes:
        devices: how many of them; None: one.
        hardware: its α and β; None: those of this machine.
    """

    devices: int | None
    hardware: HardwareModel | None

    @property
    def name(self) -> str:
        """What it is called in a sentence."""
        given = self.hardware
        what = "this machine" if given is None or given.alpha is None else f"a machine with {given}"
        return what if self.devices is None else f"{self.devices:,} devices, each like {what}"

    def seconds(self, curve: HardwareCurve, n_parameters: int) -> Callable[[float], float]:
        """Returns seconds per update over the batch size there."""
        given = self.hardware
        base = curve.seconds if given is None or given.alpha is None else given.seconds
        if self.devices is None:
            return base
        return on_devices(base, self.devices, n_parameters, None if given is None else given.bandwidth)

    def record(
        self, fit: CriticalFit | None, sizes: Mapping[int, Sized], curve: HardwareCurve, n_train: int, n_parameters: int
    ) -> dict[str, Any]:
        """Returns the quickest batch size there, with the time that is computed for it.

        Args:
            fit: of updates over batch size.
            sizes: what was measured.
            curve: seconds per update here.
            n_train: |D|.
            n_parameters: N, all of which devices add up in every update.
        """
        there, rows = self.seconds(curve, n_parameters), []
        for m in _considered(fit, sizes, n_train):
            updates = _updates(m, fit, sizes)
            t = there(m)
            rows.append({"batch_size": m, "updates": vars(updates), "seconds_per_update": t,
                         "seconds": updates.value * t, "low": updates.low * t, "high": updates.high * t})  # fmt: skip
        if not rows:
            sentence = f"For {self.name} nothing can be computed: no batch size met the target here."
            return {"name": self.name, "rows": [], "best": None, "sentences": [sentence]}
        best = min(rows, key=lambda row: row["seconds"])
        m = best["batch_size"]
        span = f"{duration(best['low'])} to {duration(best['high'])}"
        free = self.devices is not None and (self.hardware is None or self.hardware.bandwidth is None)
        sentence = (
            f"Computed, not measured: on {self.name}, updating after {count(m)} examples would finish first, with "
            f"about {count(best['updates']['value'])} updates in {duration(best['seconds'])} ({span})"
            + ("; adding up the gradients is not counted, for no bandwidth was given." if free else ".")
        )
        return {"name": self.name, "rows": rows, "best": best, "sentences": [sentence]}


def elsewhere(devices: Any, hardware: str | None) -> Elsewhere | None:
    """Returns the machine that a person asks about, None for none.

    Args:
        devices: how many.
        hardware: α and β as text.

    Raises:
        SettingsError: not a whole number of devices, or a text that is not understood.

    Example:
        >>> elsewhere(8, None).name
        '8 devices, each like this machine'
    """
    if devices is not None and (
        isinstance(devices, bool) or not hasattr(devices, "__index__") or not 1 <= devices <= _MOST_DEVICES
    ):
        raise SettingsError(f"devices={devices!r} must be a whole number from 1 to {_MOST_DEVICES:,}.")
    if devices is None and hardware is None:
        return None
    return Elsewhere(devices, None if hardware is None else parse_hardware(hardware))


def _considered(fit: CriticalFit | None, sizes: Mapping[int, Sized], n_train: int) -> list[int]:
    """Returns the sizes whose updates are known: all powers of two where the fit is, else those measured."""
    measured = {m for m, s in sizes.items() if s.reached}
    if fit is None or not fit.known or not measured:
        return sorted(measured)
    low, high = min(measured), max(measured)
    return sorted(measured | {2**k for k in range(32) if low <= 2**k <= min(high, n_train)})


def _updates(m: int, fit: CriticalFit | None, sizes: Mapping[int, Sized]) -> Interval:
    size = sizes.get(m)
    if size is not None and size.reached:
        return Interval(size.median, float(np.min(size.seen)), float(np.max(size.seen)))
    assert fit is not None
    return fit.predict(m)
