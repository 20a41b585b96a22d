"""Times updates with `deterministic=True` against the same updates without, in pairs that take turns (`pairs.py`).

    python bench/deterministic.py                          # about half a minute on two cores
    python bench/deterministic.py --networks 64-32-10 --json

A pair is two runs that differ in nothing but `deterministic`, on one device and on warm programs.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

import pairs

from backbeat.tree import leaves_of

NETWORKS = ("64-32-10", "784-128-10")
BATCHES = (1, 32, 256, pairs.N_EXAMPLES)  # the last is all of the data
ROUNDS = 31


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--batch", default=",".join(map(str, BATCHES)), help="batch sizes")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=0.03, help="of one side of a round")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    prices = []
    if not options.json:
        print(f"{'network':12} {'M':>5} {'leaves':>10} {'µs':>10} {'fixed':>7}   middle half")
    for network in options.networks.split(","):
        for batch in map(int, options.batch.split(",")):
            price = pairs.ratio(network, batch, options.rounds, options.seconds, deterministic=True)
            leaves, rows = leaves_of(batch)
            prices.append({"network": network, "batch": batch, "leaves": leaves, "rows": rows, **asdict(price)})
            if not options.json:
                print(
                    f"{network:12} {batch:5} {leaves:4} of {rows:<3} {price.microseconds:9.1f} "
                    f"{price.ratio:6.2f}×   {price.low:.2f} to {price.high:.2f}",
                    flush=True,
                )
    if options.json:
        print(json.dumps(prices, indent=1))


if __name__ == "__main__":
    main()
