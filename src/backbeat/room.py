"""How much memory is free: on the device, or for a processor what the system and the limits on the process leave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax

_CGROUPS = Path("/sys/fs/cgroup")
_FIRST = ("limit_in_bytes", "usage_in_bytes", "total_inactive_file")  # the files of version 1
_SECOND = ("max", "current", "inactive_file")


def free_bytes() -> int | None:
    """Returns the bytes of the device's memory that are free; None where it does not say.

    Of a processor: the least of what the system has, what the process's own limits (`ulimit -d`, `ulimit -v`) leave,
    and what those of its control group do, files that are only cached counted as free.

    Example:
        >>> free_bytes() > 0
        True
    """
    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    if device.platform != "cpu":
        return None
    return min((*_system(), *_process(), *_group()), default=None)


def _system() -> Iterator[int]:
    yield from _kilobytes(Path("/proc/meminfo"), "MemAvailable")


def _process() -> Iterator[int]:
    try:
        import resource
    except ImportError:  # Windows has none
        return
    status = Path("/proc/self/status")
    for limit, name in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY:
            yield from (max(0, most - used) for used in _kilobytes(status, name))


def _group() -> Iterator[int]:
    """Yields what each control group that holds this process leaves, of both versions of them."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for number, kinds, own in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        first = "memory" in kinds.split(",")
        if not first and number != "0":
            continue
        names, top = (_FIRST, _CGROUPS / "memory") if first else (_SECOND, _CGROUPS)
        below = top / own.lstrip("/")
        for folder in {below, *below.parents}:
            if folder == top or top in folder.parents:
                yield from _left(folder, *names)


def _left(folder: Path, most: str, used: str, cached: str) -> Iterator[int]:
    """Yields what a group's limit leaves; a file that is cached gives its room back."""
    try:
        limit, taken = (int((folder / f"memory.{name}").read_text(encoding="ascii")) for name in (most, used))
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        yield max(0, limit - taken + next((int(line.split()[1]) for line in lines if line.startswith(f"{cached} ")), 0))
    except (OSError, ValueError):  # there is no limit
        return


def _kilobytes(file: Path, name: str) -> Iterator[int]:
    """Yields the bytes that a line of a file of the kernel's says, such as `MemAvailable:  12 kB`."""
    try:
        for line in file.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                yield 1024 * int(line.split()[1])
    except (OSError, ValueError):
        return
