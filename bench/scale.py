"""What the cost model of `backbeat.scale` says of several processes on this machine, against what they take.

    python bench/scale.py                                # about two minutes on two cores
    python bench/scale.py --networks 784-128-10 --json

A process is timed over the batch size, by itself and beside another one that has nothing to do with it: that gives α
and β, which differ because two processes on one machine share its cores. The adding up of vectors of two lengths by
two processes, each time after something else was computed, gives the latency λ and the bandwidth W of the loopback
device. From these numbers the time of an update of 1 and of 2 processes is predicted, and then measured on batches
that none of them was taken from. All times are medians of short rounds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np

NETWORKS = ("64-32-10", "784-128-10")
FITTED, CHECKED = (64, 2048), (128, 512, 1024)
N_EXAMPLES, ROUNDS, SECONDS = 4096, 9, 0.1
LENGTHS = (1 << 10, 1 << 20)


def update_seconds(network: str, batch: int) -> float:
    """Returns the seconds of an update in this process, and those that it trains with."""
    import backbeat as bb
    from backbeat.advance import Engine
    from backbeat.clock import Duration
    from backbeat.config import Settings, resolve
    from backbeat.mesh import agreed

    inputs, *hidden, _ = map(int, network.split("-"))
    data = np.random.default_rng(0).standard_normal((N_EXAMPLES, inputs), dtype=np.float32), np.arange(N_EXAMPLES) % 10
    settings = Settings(
        every=batch, learning_rate=1e-5, held_out=0.0, duration="1000000000 updates", evaluate="never",
        loss="cross_entropy",
    )  # fmt: skip
    engine = Engine(resolve(bb.mlp(hidden=tuple(hidden)), data, settings))
    engine.compile()

    def advance(n: int) -> float:
        start, end = time.perf_counter(), engine.clock.updates + n
        while engine.clock.updates < end:
            engine.advance([Duration(float(end), "updates")])
        return agreed(time.perf_counter() - start)

    n = 2
    while (took := min(advance(n), advance(n))) < SECONDS / 2:
        n *= 2
    n = max(1, round(n * SECONDS / took))
    return statistics.median(advance(n) / n for _ in range(ROUNDS))


def adding_seconds(length: int) -> float:
    """Returns the seconds that adding up a vector over all processes adds to computing something else in between.

    With nothing in between the processes stay in step and their threads awake, and it would seem four times as fast.
    """
    import jax
    import jax.numpy as jnp
    from jax.sharding import Mesh, PartitionSpec

    from backbeat.mesh import agreed

    mesh = Mesh(np.array(jax.devices()), ("d",))
    weight = np.full((256, 256), 1e-3, np.float32)

    def many(x: Any, y: Any, n: Any, add: Any) -> Any:
        def one(_: Any, carry: tuple) -> tuple:
            x, y = carry
            y = jnp.tanh(y @ weight) + x[0]
            x = x + y[0, 0]
            return jax.lax.cond(add, lambda: jax.lax.psum(x, "d") * 0.25, lambda: x * 0.5), y

        return jax.lax.fori_loop(0, n, one, (x, y))

    alike = PartitionSpec()
    run = jax.jit(jax.shard_map(many, mesh=mesh, in_specs=alike, out_specs=alike, check_vma=False))
    given = np.zeros(length, np.float32), np.zeros((128, 256), np.float32), np.int32(50)
    times: dict[bool, list[float]] = {True: [], False: []}
    for number in range(2 * ROUNDS + 2):
        add = number % 2 == 0
        start = time.perf_counter()
        jax.block_until_ready(run(*given, np.bool_(add)))
        times[add].append(agreed(time.perf_counter() - start) / 50)
    return statistics.median(times[True][1:]) - statistics.median(times[False][1:])


def work(networks: list[str]) -> None:
    """Prints, as one of the processes, what they take together."""
    from backbeat.join import join, leave, place_of
    from backbeat.mesh import leads

    place = place_of(None, None, None)
    if place is not None:
        join(place)
    found: dict[str, Any] = {network: {m: update_seconds(network, m) for m in FITTED + CHECKED} for network in networks}
    if place is not None:
        found["adding"] = {length: adding_seconds(length) for length in LENGTHS}
    if leads():
        print(json.dumps(found), flush=True)
    leave()


def together(processes: int, networks: list[str], *, joined: bool = True) -> dict[str, Any]:
    """Returns what so many processes take that train together, or at least at the same time."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    started = []
    for index in range(processes):
        place = {"BACKBEAT_COORDINATOR": address, "BACKBEAT_PROCESS_COUNT": str(processes)}
        place = {**place, "BACKBEAT_PROCESS_INDEX": str(index)} if joined and processes > 1 else {}
        command = [sys.executable, __file__, "--work", ",".join(networks)]
        started.append(subprocess.Popen(command, env={**os.environ, **place}, text=True, stdout=subprocess.PIPE))
    said = [process.communicate()[0] for process in started]
    return json.loads(next(line for line in said[0].splitlines() if line.startswith("{")))


def machine_of(found: dict[str, float], link: Any) -> Any:
    """Returns the machine whose α and β are those of two batch sizes."""
    from backbeat.scale import Machine

    low, high = (found[str(m)] for m in FITTED)
    beta = (high - low) / (FITTED[1] - FITTED[0])
    return Machine(max(0.0, low - beta * FITTED[0]), beta, link)


def parameters_of(network: str) -> int:
    """Returns N."""
    sizes = list(map(int, network.split("-")))
    return sum((inputs + 1) * outputs for inputs, outputs in itertools.pairwise(sizes))


def main() -> None:
    """Prints measured against predicted."""
    from backbeat.scale import Link, scaling

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--json", action="store_true", help="print JSON instead of the tables")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work.split(","))
        return
    networks = options.networks.split(",")
    one, beside, two = together(1, networks), together(2, networks, joined=False), together(2, networks)
    short, long = (two["adding"][str(length)] for length in LENGTHS)
    bandwidth = 4 * (LENGTHS[1] - LENGTHS[0]) / (long - short)  # two devices: A = 2 λ + 4 N / W
    link = Link(max(0.0, short - 4 * LENGTHS[0] / bandwidth) / 2, bandwidth)
    rows, said = [], []
    for network in networks:
        n = parameters_of(network)
        machines = {1: machine_of(one[network], link), 2: machine_of(beside[network], link)}
        for m in CHECKED:
            for processes, found in ((1, one), (2, two)):
                predicted, measured = machines[processes].update_seconds(m, processes, n), found[network][str(m)]
                rows.append((network, m, processes, predicted, measured))
        each = " and ".join(f"α = {it.alpha * 1e6:.1f} µs, β = {it.beta * 1e6:.3f} µs" for it in machines.values())
        worth = scaling(machines[1], n, 1000, N_EXAMPLES, (1, 2, 4, 8, 16, 32, 64))
        said.append(f"{network}: {each} beside another; with more machines like this at B_crit = 1,000: {worth}")
    if options.json:
        print(json.dumps({"latency": link.latency, "bandwidth": link.bandwidth, "rows": rows}, indent=1))
        return
    print("\n".join([*said, f"loopback: λ = {link.latency * 1e6:.0f} µs, W = {bandwidth / 1e9:.2f} GB/s"]))
    print(f"{'network':12} {'M':>5} {'processes':>9} {'predicted':>10} {'measured':>10}")
    for network, m, processes, predicted, measured in rows:
        print(f"{network:12} {m:5} {processes:9} {predicted * 1e6:8.0f} µs {measured * 1e6:7.0f} µs")


if __name__ == "__main__":
    main()
