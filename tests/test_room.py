"""How much memory is free: limits on the process and on its control groups count."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backbeat import room

MIB = 1 << 20


def test_a_limit_on_the_process_is_what_is_left():
    program = f"import resource as r; r.setrlimit(r.RLIMIT_AS, ({6000 * MIB}, {6000 * MIB}))\n"
    program += "from backbeat.room import free_bytes; print(free_bytes())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 6000 * MIB


@pytest.mark.parametrize(
    ("line", "folder", "most", "used", "cached"),
    [
        ("0::/jobs/one", "jobs/one", "max", "current", "inactive_file"),
        ("4:cpu,memory:/jobs/one", "memory/jobs/one", "limit_in_bytes", "usage_in_bytes", "total_inactive_file"),
    ],
)
def test_control_groups_of_both_versions_count(
    line: str, folder: str, most: str, used: str, cached: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def write(group: str, limit: str, taken: int, files: int) -> None:
        place = tmp_path / group
        place.mkdir(parents=True, exist_ok=True)
        for name, text in ((most, limit), (used, str(taken)), ("stat", f"anon 1\n{cached} {files}\n")):
            (place / f"memory.{name}").write_text(text)

    real: Callable = Path.read_text
    monkeypatch.setattr(room, "_CGROUPS", tmp_path)
    monkeypatch.setattr(
        Path, "read_text", lambda self, **how: line if str(self) == "/proc/self/cgroup" else real(self, **how)
    )
    assert list(room._group()) == []
    write(folder, str(100 * MIB), 80 * MIB, 30 * MIB)
    assert list(room._group()) == [50 * MIB]
    write(str(Path(folder).parent), str(90 * MIB), 70 * MIB, 0)  # a group above may have less
    assert min(room._group()) == 20 * MIB
    write(folder, "max" if most == "max" else str(1 << 62), 80 * MIB, 0)
    assert min(room._group()) == 20 * MIB
