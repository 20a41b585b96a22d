"""How much memory a person gives: read from text, and what is larger than it."""

from __future__ import annotations

import re
from typing import Any

from ...errors import SettingsError
from ..raw import Source

BESIDE = 450_000_000  # bytes that Python, JAX, a compiled program and its blocks take beside any data, as measured
LEAST = 600_000_000
_A_RUN = 700_000_000  # bytes of a run on packed data at its peak, with a margin: buffers, blocks, evaluation
_AN_EXAMPLE = 40  # bytes beside its inputs
_UNITS = {"": 1, "b": 1} | {
    f"{letter}{ending}": base**power
    for power, letter in enumerate("kmgt", start=1)
    for ending, base in (("", 1000), ("b", 1000), ("ib", 1024))
}


def memory_bytes(memory: Any) -> int:
    """Returns the bytes that a memory setting stands for.

    Args:
        memory: bytes as a number, or a text such as "2 GB", "500 MB" or "1.5 GiB".

    Raises:
        SettingsError: something else, or less than a run needs without any data.

    Example:
        >>> memory_bytes("1.5 GiB"), memory_bytes("2GB")
        (1610612736, 2000000000)
    """
    found = re.fullmatch(r"\s*(\d+(?:[._]\d+)*(?:e\d+)?)\s*([a-z]*)\s*", str(memory).lower())
    if isinstance(memory, bool) or not found or found[2] not in _UNITS or found[1].count(".") > 1:
        raise SettingsError(
            f'memory={memory!r} is no amount of memory; give for example "2 GB", "500 MB" or "1.5 GiB".'
        )
    n_bytes = int(float(found[1]) * _UNITS[found[2]])
    if n_bytes < LEAST:
        raise SettingsError(
            f"memory={memory!r} is too little: Python and JAX take about {BESIDE / 1e6:.0f} MB before any data; give "
            f'at least "{LEAST / 1e6:.0f} MB".'
        )
    return n_bytes


def left_for_data(memory: Any, n_examples: int) -> float:
    """Returns how many bytes of data in files may stay in memory: what a run does not need itself.

    Args:
        memory: as in `memory_bytes`; None for no limit, which leaves nothing here: such data is not packed.
        n_examples: whose labels, indices and order take memory too.

    Example:
        >>> left_for_data("1 GB", 1_000_000) / 1e6, left_for_data("600 MB", 1_000_000)
        (234.0, 0.0)
    """
    most = 0 if memory is None else memory_bytes(memory)
    return max(0.0, 0.9 * (most - _A_RUN - _AN_EXAMPLE * n_examples))


def larger_than_memory(source: Source, memory: Any) -> bool:
    """Returns whether a source has to stay in files: its inputs, a copy of a part, and JAX itself exceed the memory.

    Args:
        source: where the data comes from.
        memory: as in `memory_bytes`; None for as much as is needed.
    """
    return memory is not None and source.n_bytes() > (memory_bytes(memory) - BESIDE) / 2
