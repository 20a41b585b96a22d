"""The least time that an update can take here: operations over the measured rate, bytes over the measured bandwidth.

    python bench/floor.py        # what was measured of the machine, and the floor of each network

Operations are those of the matrix products and convolutions, forward and back; the first layer needs no gradient of its
inputs. Bytes are those that cannot be avoided: weights are read forward, read back and written, a rule's memory is read
and written, and the batch is read. Which bandwidth counts depends on how much is touched in an update: what fits into a
cache is measured there. What is left out (activations, biases, norms, the softmax) makes the floor lower, never higher.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from peers.task import CNN, HEADS, LAYERS, LENGTH, LOGISTIC, NETWORKS, TRANSFORMER, VOCABULARY, WIDTH, Task, flat

_SIZES = tuple(1 << k for k in range(14, 29))  # bytes: 16 KiB to 256 MiB
_ROUNDS = 7


@dataclass(frozen=True)
class Machine:
    """What was measured of it.

    Attributes:
        flops: of a float32 matrix product, on all cores, a second.
        bandwidth: bytes touched -> bytes a second that reading and writing them moves, on all cores.
    """

    flops: float
    bandwidth: dict[int, float]

    def bytes_a_second(self, touched: float) -> float:
        """Returns the greatest bandwidth at which so many bytes, or more, were moved."""
        larger = [rate for size, rate in self.bandwidth.items() if size >= touched]
        return max(larger) if larger else min(self.bandwidth.values())


def _fastest(call: Any) -> float:
    """Returns the seconds of the fastest of some calls, each long enough to be timed: a limit is not a median."""
    call()
    start, n = time.perf_counter(), 0
    while time.perf_counter() - start < 0.05:
        call()
        n += 1
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        for _ in range(n):
            call()
        times.append((time.perf_counter() - start) / n)
    return min(times)


def measured() -> Machine:
    """Returns what the machine does at best, through XLA, which backbeat and the scan compute with too."""
    flops = 0.0
    for n in (512, 1024, 2048):
        a = jnp.ones((n, n), jnp.float32)
        product = jax.jit(lambda a: a @ a)
        flops = max(flops, 2 * n**3 / _fastest(lambda a=a, f=product: f(a).block_until_ready()))

    # x ← 0.999 x, many times inside one program, so that no call is paid for: reads and writes all of x
    def moved(x: Any, n: Any) -> Any:
        return jax.lax.fori_loop(0, n, lambda _, x: 0.999 * x, x)

    bandwidth = {}
    for size in _SIZES:
        n = max(4, (1 << 27) // size)
        program = jax.jit(moved, donate_argnums=0)
        x = [jnp.ones(size // 4, jnp.float32)]

        def call(x: list = x, n: int = n, program: Any = program) -> None:
            x[0] = program(x[0], n).block_until_ready()

        bandwidth[size] = 2 * size * n / _fastest(call)
    return Machine(flops, bandwidth)


def operations(task: Task) -> float:
    """Returns the floating-point operations of an update: 2 of each product's elements, forward and twice back."""
    if task.network == TRANSFORMER:
        tokens = task.batch * LENGTH
        layer = WIDTH * (3 * WIDTH + WIDTH + 8 * WIDTH)
        attention = 2 * LENGTH * WIDTH / 2  # q k and its mix, of what came before: half of all pairs
        assert WIDTH % HEADS == 0
        return 6.0 * tokens * (LAYERS * (layer + attention) + WIDTH * VOCABULARY)
    if task.network == CNN:
        first, second, dense = 28 * 28 * 9 * 8, 14 * 14 * 9 * 8 * 16, 7 * 7 * 16 * 10
        return 2.0 * task.batch * (2 * first + 3 * (second + dense))
    sizes = (64, 1) if task.network == LOGISTIC else task.sizes
    products = [a * b for a, b in pairwise(sizes)]
    return 2.0 * task.batch * (3 * sum(products) - products[0])


def traffic(task: Task) -> tuple[float, float]:
    """Returns (bytes moved by an update, bytes touched)."""
    n = flat(task.weights()).size
    memory = {"sgd": 0, "momentum": 1, "adam": 2}[task.optimizer]
    x, y = (array[: task.batch].nbytes for array in task.data())
    return 4.0 * n * (3 + 2 * memory) + x + y, 4.0 * n * (1 + memory) + x + y


def floor(task: Task, machine: Machine) -> float:
    """Returns the seconds below which an update cannot be here."""
    moved, touched = traffic(task)
    return max(operations(task) / machine.flops, moved / machine.bytes_a_second(touched))


def main() -> None:
    """Prints the machine and the floors."""
    machine = measured()
    if "--json" in sys.argv:
        print(json.dumps(asdict(machine)))
        return
    print(f"matrix product {machine.flops / 1e9:,.0f} Gflop/s")
    for size, rate in machine.bandwidth.items():
        print(f"{size / 1024:>9,.0f} KiB  {rate / 1e9:6.1f} GB/s")
    for network in NETWORKS:
        found = {m: floor(Task(network, batch=m), machine) for m in (1, 32, 1024)}
        print(f"{network:18}", *(f"M={m}: {1e6 * seconds:9.2f} µs" for m, seconds in found.items()))


if __name__ == "__main__":
    main()
