"""What more devices are worth: the time of an update, the updates that it takes, and where both stop falling.

An update of M examples on n devices takes T(M, n) = α + β ⌈M / n⌉ + A(N, n): what one device computes, and the adding
up of N numbers of 4 bytes. In a ring that is A = 2 (n − 1) λ + 2 (n − 1) / n · 4 N / W, with the latency λ of a message
and W bytes a second over a link (Patarasuk & Yuan 2009); by a tree, for which the latency grows with the logarithm, it
is A = 2 ⌈log₂ n⌉ (λ + 4 N / W). The faster one counts. The updates needed are S(M) ∝ 1 + B_crit / M (McCandlish et al.
2018, arXiv:1812.06162): beyond the critical batch size more examples in an update save no updates, and below it a
device more has less and less to compute. So for each n there is a best M, and an n beyond which the time to the target
hardly falls.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

WORLDS = tuple(1 << k for k in range(13))  # 1 to 4,096 devices
PAYS = 0.5  # doubling the devices pays while it saves at least this share of what it could, half the time


@dataclass(frozen=True)
class Link:
    """What joins devices.

    Attributes:
        latency: λ, seconds of one message.
        bandwidth: W, bytes a second.
    """

    latency: float
    bandwidth: float

    def seconds(self, n_parameters: int, devices: int) -> float:
        """Returns A(N, n), the seconds in which n devices add up N numbers.

        Example:
            >>> round(Link(1e-5, 1e9).seconds(1_000_000, 2) * 1e3, 2)
            4.02
        """
        if devices == 1:
            return 0.0
        size, steps = 4 * n_parameters, math.ceil(math.log2(devices))
        ring = 2 * (devices - 1) * self.latency + 2 * (devices - 1) / devices * size / self.bandwidth
        return min(ring, 2 * steps * (self.latency + size / self.bandwidth))


@dataclass(frozen=True)
class Machine:
    """A device, and what joins it to others.

    Attributes:
        alpha: α, seconds of an update however few examples it has.
        beta: β, seconds that each example adds.
        link: to the others.
    """

    alpha: float
    beta: float
    link: Link

    def update_seconds(self, batch_size: int, devices: int, n_parameters: int) -> float:
        """Returns T(M, n).

        Example:
            >>> machine = Machine(1e-5, 1e-6, Link(1e-5, 1e9))
            >>> round(machine.update_seconds(1000, 4, 10_000) * 1e6)
            380
        """
        own = math.ceil(batch_size / devices)
        return self.alpha + self.beta * own + self.link.seconds(n_parameters, devices)


@dataclass(frozen=True)
class World:
    """The best that so many devices can do.

    Attributes:
        devices: n.
        batch_size: the M with which the target is reached first.
        update_seconds: T(M, n).
        speedup: how many times sooner than one device, at its own best M, the target is reached.
        same_batch: the same at one device's best M.
    """

    devices: int
    batch_size: int
    update_seconds: float
    speedup: float
    same_batch: float

    @property
    def efficiency(self) -> float:
        """The speed-up over the number of devices."""
        return self.speedup / self.devices


@dataclass(frozen=True)
class Scaling:
    """What each number of devices is worth for one task."""

    worlds: tuple[World, ...]

    @property
    def pays_up_to(self) -> int:
        """The most devices to which doubling still pays: it saves a quarter of the time or more, where half is all."""
        most = self.worlds[0]
        for world in self.worlds[1:]:
            saved = 1 - most.speedup / world.speedup
            if saved < PAYS * (1 - most.devices / world.devices):
                break
            most = world
        return most.devices

    def __str__(self) -> str:
        best = next(world for world in self.worlds if world.devices == self.pays_up_to)
        if best.devices == 1:
            return "a second device does not pay: adding up takes longer than it saves"
        return (
            f"more devices pay up to {best.devices:,}, where the target is reached {best.speedup:.3g} times sooner, "
            f"with {best.batch_size:,} examples an update"
        )


def scaling(
    machine: Machine, n_parameters: int, b_crit: float, n_train: int, worlds: Iterable[int] = WORLDS
) -> Scaling:
    """Returns what each number of devices is worth, each at the batch size that is best for it.

    Args:
        machine: one device, and what joins it to others.
        n_parameters: N.
        b_crit: B_crit, the critical batch size of the task.
        n_train: |D|: no batch is larger.
        worlds: numbers of devices, the first of them 1.

    Example:
        >>> machine = Machine(alpha=2e-5, beta=1e-5, link=Link(latency=2e-5, bandwidth=1e10))
        >>> found = scaling(machine, 100_000, b_crit=1000, n_train=60_000)
        >>> found.pays_up_to, [world.batch_size for world in found.worlds[:3]]
        (8, [32, 128, 256])
    """
    sizes = [1 << k for k in range(int(math.log2(n_train)) + 1)]

    def seconds(batch_size: int, devices: int) -> float:
        return (1 + b_crit / batch_size) * machine.update_seconds(batch_size, devices, n_parameters)

    found, first, alone = [], 1, 0.0
    for devices in worlds:
        best = min(sizes, key=lambda batch_size: seconds(batch_size, devices))
        if not found:
            first, alone = best, seconds(best, 1)
        speedup, same = (alone / seconds(batch_size, devices) for batch_size in (best, first))
        took = machine.update_seconds(best, devices, n_parameters)
        found.append(World(devices, best, took, speedup, same))
    return Scaling(tuple(found))
