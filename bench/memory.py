"""How much memory a full batch needs beside the data: the array once, and a bounded amount.

    python bench/memory.py

Each figure is the peak of a process of its own less that of the same run over four blocks of examples: so Python, JAX,
the compiled program and the activations of one block are left out, and what grows with the data is left. An array that
does not begin at a multiple of 64 bytes (NumPy's own do not) is copied by JAX where it is small, 256 MiB at most; a
larger one stays where it is, in the host's memory (`backbeat.data.streaming.host`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

FEATURES, HIDDEN, BLOCK, EXAMPLES = 784, 128, 2048, 102_400


def peak(examples: int, held_out: float, evaluate: str, at: int) -> int:
    """Returns the peak memory in bytes of a process that trains two full-batch updates on so many examples.

    Args:
        examples: how many, each of 784 numbers.
        held_out: the share that is not trained on.
        evaluate: as in `backbeat.fit`.
        at: where the array begins, in bytes behind a multiple of 64.
    """
    arguments = json.dumps([examples, held_out, evaluate, at])
    done = subprocess.run([sys.executable, __file__, "--one", arguments], capture_output=True, text=True, check=True)
    return int(done.stdout)


def one(examples: int, held_out: float, evaluate: str, at: int) -> int:
    """Trains, in this process, and returns its peak memory in bytes."""
    import numpy as np

    import backbeat as bb
    from backbeat.data.dataset import aligned

    x = aligned((examples * FEATURES + 16,), np.float32)[at // 4 :][: examples * FEATURES].reshape(examples, FEATURES)
    rng = np.random.default_rng(0)
    for start in range(0, examples, BLOCK):
        x[start : start + BLOCK] = rng.random((min(BLOCK, examples - start), FEATURES), np.float32)
    y = rng.integers(0, 10, examples, np.int32)
    bb.fit(bb.mlp(hidden=(HIDDEN,)), (x, y), every="dataset", block=BLOCK, held_out=held_out, duration="2 updates",
           evaluate=evaluate)  # fmt: skip
    return own_peak()


def own_peak() -> int:
    """Returns the peak memory of this process in bytes.

    On Linux from /proc: `ru_maxrss` begins there with what the *parent* took, and would hide a copy from a large one.
    """
    import resource

    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def above_the_array(examples: int, held_out: float, evaluate: str, at: int) -> int:
    """Returns the bytes that a run needs beyond its array, less those of a run over four blocks."""
    small = 4 * BLOCK
    more = peak(examples, held_out, evaluate, at) - peak(small, held_out, evaluate, at)
    return more - 4 * FEATURES * (examples - small)


def main() -> None:
    """Prints what full batches need beyond the array."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(one(*json.loads(given.one)))
        return
    array, block = 4 * FEATURES * EXAMPLES, 4 * (FEATURES + HIDDEN) * BLOCK
    print(f"{EXAMPLES} examples of {FEATURES} numbers: {array / 1e6:.0f} MB; a block's numbers: {block / 1e6:.1f} MB")
    for held_out in (0.0, 0.2):
        for evaluate in ("never", "1 epoch"):
            for at in (0, 16):
                more = above_the_array(EXAMPLES, held_out, evaluate, at)
                print(
                    f"held out {held_out}, evaluate {evaluate:8} array at {at:2}: {more / 1e6:7.1f} MB beyond the array"
                )


if __name__ == "__main__":
    main()
