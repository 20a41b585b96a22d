"""The cores that this process may use, and work spread over them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any


def n_cores() -> int:
    """Returns how many cores this process may use.

    Example:
        >>> n_cores() >= 1
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def asked_cores() -> str | None:
    """Returns how many cores JAX was told to use, as the environment has it; None where it takes those it may use.

    How many there are decides how a convolution or a large matrix product is cut, and so its last bits.
    """
    return os.environ.get("PJRT_NPROC", os.environ.get("NPROC"))


def in_threads(work: Callable[..., Any], items: Iterable[Any], what: str = "work") -> list[Any]:
    """Returns what a function gives for each item, as many at a time as there are cores.

    Args:
        work: item -> result.
        items: any number.
        what: whose threads to take. Work that waits for other work takes other threads than that, else both could wait
            for ever.

    Example:
        >>> in_threads(abs, [-1, 2])
        [1, 2]
    """
    items = list(items)
    if len(items) == 1 or n_cores() == 1:
        return [work(item) for item in items]
    return list(_pool(what).map(work, items))


@cache
def _pool(what: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_cores(), thread_name_prefix=f"backbeat {what}")
