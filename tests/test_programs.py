"""Compiled programs kept between processes: the same bits, checked, bounded, and its owner's alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backbeat.programs import Programs, _own_folder

TRAIN = ("train", "--every", "32", "--for", "2 epochs", "--quiet", "--run")
LOOK = """
import sys
from backbeat.programs import keep_programs
print(keep_programs())
import jax
from jax._src import monitoring
hits = []
monitoring.register_event_listener(lambda name, **more: hits.append(name) if name.endswith("cache_hits") else None)
print(jax.jit(lambda x: x * 3 + 1)(2.0), len(hits))
"""


def in_process(cache: Path, *arguments: str, folder: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=folder, timeout=300,
        env={**os.environ, "BACKBEAT_CACHE": str(cache), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def entries(cache: Path) -> list[Path]:
    return sorted((cache / "programs").glob("*/*.program"))


def test_a_second_process_compiles_nothing_and_comes_to_the_same_bits(tmp_path: Path) -> None:
    weights = []
    for name in ("first", "second", "damaged"):
        if name == "damaged":  # each in another way: cut off, a bit flipped, empty
            for number, entry in enumerate(before):
                text = bytearray(entry.read_bytes())
                text[len(text) // 2] ^= 1
                entry.write_bytes([text, text[:-1], b""][number % 3])
        in_process(tmp_path / "cache", "-m", "backbeat", *TRAIN, name, folder=tmp_path)
        weights.append((tmp_path / "runs" / name / "model.safetensors").read_bytes())
        if name == "first":
            before = entries(tmp_path / "cache")
            assert len(before) > 5
        assert entries(tmp_path / "cache") == before  # the second one adds none; what was damaged is there again
    assert weights[0] == weights[1] == weights[2]


def test_what_is_kept_is_taken_by_the_next_process(tmp_path: Path) -> None:
    first, second = (in_process(tmp_path, "-c", LOOK).splitlines() for _ in range(2))
    assert first[0] == second[0] == str(entries(tmp_path)[0].parent)
    assert (first[1], second[1]) == ("7.0 0", "7.0 1")


def test_other_cores_have_programs_of_their_own(tmp_path: Path) -> None:
    folders = {in_process(tmp_path, "-c", LOOK, PJRT_NPROC=n).splitlines()[0] for n in ("1", "2")}
    assert len(folders) == 2


def test_a_users_own_setting_holds(tmp_path: Path) -> None:
    own = tmp_path / "own"
    said = in_process(
        tmp_path / "cache",
        "-c",
        LOOK,
        JAX_COMPILATION_CACHE_DIR=str(own),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
    )
    assert said.splitlines()[0] == "None"
    assert not (tmp_path / "cache").exists()
    assert any(own.iterdir())


def test_the_ones_not_used_for_longest_make_room(tmp_path: Path) -> None:
    programs = Programs(tmp_path, limit=350)
    for age, name in ((30, "old"), (20, "older and used"), (10, "new")):
        programs.put(name, name.encode() * 5)
        path = tmp_path / f"{name}.program"
        used = path.stat().st_mtime - age
        os.utime(path, (used, used))
    assert programs.get("older and used") == b"older and used" * 5
    programs.put("large", bytes(150))
    assert {path.stem for path in tmp_path.iterdir()} == {"older and used", "new", "large"}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 350
    programs.put("too large", bytes(401))
    assert programs.get("too large") is None


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such modes")
def test_a_folder_where_others_can_write_is_not_used(tmp_path: Path) -> None:
    mine, open_to_all = tmp_path / "mine", tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    assert _own_folder(mine) == mine
    assert mine.stat().st_mode & 0o077 == 0
    assert _own_folder(open_to_all) is None
    (tmp_path / "file").touch()
    assert _own_folder(tmp_path / "file" / "below") is None


def test_a_disk_that_takes_nothing_stops_nothing(tmp_path: Path) -> None:
    programs = Programs(tmp_path / "gone")
    programs.put("key", b"value")
    assert programs.get("key") is None
