"""Times updates with `watch_noise` against the same updates without, in pairs that take turns (`pairs.py`).

    python bench/noise.py                                      # about three minutes on two cores
    python bench/noise.py --networks 64-32-10 --batch 32,256
    python bench/noise.py --json > noise.json

A pair is two runs that differ in nothing but `watch_noise`, on warm programs. What is done for the noise outside the
program counts too.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

import pairs

NETWORKS = ("64-32-10", "784-128-10", "784-512-512-10", "cnn:8,16")
BATCHES = (2, 8, 32, 256, 2048)
ROUNDS = 41
MOST_COST, FROM = 0.30, 32  # what is wanted of dense networks, from this batch size on


def too_much(network: str, batch: int, cost: pairs.Ratio) -> bool:
    """Whether it is a case that has a bound, and costs more."""
    return network[0].isdigit() and batch >= FROM and cost.ratio > 1 + MOST_COST


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=";".join(NETWORKS), help="with ; between")
    parser.add_argument("--batch", default=",".join(map(str, BATCHES)), help="batch sizes")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=0.02, help="of one side of a round")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    costs, over = [], 0
    if not options.json:
        print(f"{'network':15} {'M':>5} {'µs':>10} {'with':>7}   middle half")
    for network in options.networks.split(";"):
        for batch in map(int, options.batch.split(",")):
            cost = pairs.ratio(network, batch, options.rounds, options.seconds, watch_noise=True)
            costs.append({"network": network, "batch": batch, **asdict(cost)})
            over += too_much(network, batch, cost)
            if not options.json:
                said = "  more than wanted" if too_much(network, batch, cost) else ""
                print(
                    f"{network:15} {batch:5} {cost.microseconds:10.2f} {cost.ratio:6.2f}×   "
                    f"{cost.low:.2f} to {cost.high:.2f}{said}",
                    flush=True,
                )
    if options.json:
        print(json.dumps(costs, indent=1))
    print(f"{over} of the dense networks at M ≥ {FROM} cost more than {MOST_COST:.0%}", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
