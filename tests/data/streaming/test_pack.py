"""Packing: the same numbers as in memory, known again by content, never taken for complete when it is not."""

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backbeat.data.dataset import Dataset
from backbeat.data.load import load
from backbeat.data.raw import Reading
from backbeat.data.readers.sources import open_source
from backbeat.data.streaming import cache, content, memory, pack, packed, reads, shards
from backbeat.data.streaming.cache import cache_folder, found_entry, new_entry
from backbeat.data.streaming.memory import memory_bytes
from backbeat.data.streaming.packed import Packed
from backbeat.errors import DataError, SettingsError

RNG = np.random.default_rng(0)
N = 300
X, Y = RNG.normal(size=(N, 5)).astype(np.float32), RNG.integers(0, 3, N)


@pytest.fixture(autouse=True)
def small_and_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gives a cache folder of its own, and shards and pieces so small that there are many."""
    monkeypatch.setenv("BACKBEAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shards, "_SHARD_BYTES", 1 << 10)
    monkeypatch.setattr(pack, "_PIECE_BYTES", 1 << 9)
    return tmp_path


@pytest.fixture
def npy(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    return tmp_path / "x.npy"


def pack_of(path: Path, reading: Reading | None = None, seed: int = 0, **more: Any) -> Dataset:
    reading = Reading() if reading is None else reading
    return pack.packed(open_source(path, reading), reading, seed, **more)


def entries() -> list[Path]:
    return [path for path in cache_folder().iterdir() if path.name != "known"] if cache_folder().exists() else []


def the_sentence(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith((".", "?"))
    return text


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("2 GB", 2 * 10**9),
        ("700MB", 7 * 10**8),
        ("1.5 GiB", 3 << 29),
        ("2g", 2 * 10**9),
        (10**9, 10**9),
        ("1_000_000 kB", 10**9),
    ],
)
def test_memory_is_read(text: Any, n_bytes: int):
    assert memory_bytes(text) == n_bytes


@pytest.mark.parametrize("text", ["", "lots", "-1 GB", "2 XB", True, "1.2.3 GB", 0, "5 MB", "nan"])
def test_what_is_no_memory_is_refused(text: Any):
    with pytest.raises(SettingsError) as error:
        memory_bytes(text)
    assert "memory=" in the_sentence(error)


def tables(folder: Path) -> Path:
    letters = np.array(["u", "v", "w"])[RNG.integers(0, 3, N)]
    parts = np.where(RNG.random(N) < 0.3, "test", "train")
    lines = ["a,b,letter,part,w,label"]
    columns = zip(X, letters, parts, RNG.random(N), Y, strict=True)
    lines += [f"{x[0]},{x[1]},{letter},{part},{w},{'xyz'[y]}" for x, letter, part, w, y in columns]
    (folder / "t.csv").write_text("\n".join(lines))
    return folder / "t.csv"


def pixels(folder: Path) -> Path:
    np.savez(folder / "i.npz", x=RNG.integers(0, 256, (N, 4, 4), dtype=np.uint8), y=Y)
    return folder / "i.npz"


def tokens(folder: Path) -> Path:
    np.savez(folder / "t.npz", x=RNG.integers(0, 50, (N, 6)), y=Y)
    return folder / "t.npz"


@pytest.mark.parametrize(
    ("make", "reading"),
    [
        (tables, {"label": "label", "inputs": "a,b,letter"}),
        (tables, {"label": "label", "inputs": "a,b,letter", "weight": "w", "held_out": "part"}),
        (pixels, {}),
        (pixels, {"prepare": "none"}),
        (tokens, {}),
    ],
)
def test_packed_is_what_it_is_in_memory(make: Any, reading: dict, tmp_path: Path):
    path, how = make(tmp_path), Reading(**reading)
    here, there = load(str(path), how, 3), pack_of(path, how, 3)
    np.testing.assert_array_equal(there.x[:], here.x)
    np.testing.assert_array_equal(there.y, here.y)
    assert len(there.x.shards) > 3
    assert (there.classes, there.task, bool(there.whole)) == (here.classes, here.task, bool(here.whole))
    np.testing.assert_equal(there.weight, here.weight)
    np.testing.assert_equal(there.parts, here.parts)
    assert set(here.notes) <= set(there.notes)
    if here.preparation is not None:
        raw = open_source(str(path), how).read()
        np.testing.assert_array_equal(there.preparation.inputs(raw), here.x)


def test_a_file_of_its_own_is_held_out(tmp_path: Path):
    path = tables(tmp_path)
    lines = path.read_text().splitlines()
    (tmp_path / "h.csv").write_text("\n".join(lines[:50]))
    reading = Reading(label="label", inputs="a,b,letter", held_out=str(tmp_path / "h.csv"))
    here, there = load(str(path), reading), pack_of(path, reading)
    np.testing.assert_array_equal(there.x[:], here.x)
    assert there.parts is not None
    np.testing.assert_array_equal(there.parts.held_out, np.arange(N, N + 49))
    assert set(here.notes) <= set(there.notes)


def test_tokens_are_whole_numbers_again(tmp_path: Path):
    whole = pack_of(tokens(tmp_path)).as_whole()
    assert whole is not None
    assert whole.x[:3].dtype == np.int32
    np.testing.assert_array_equal(whole.x[:], np.load(tmp_path / "t.npz")["x"])


def test_load_packs_what_is_larger_than_the_memory(npy: Path, monkeypatch: pytest.MonkeyPatch):
    assert isinstance(load(str(npy), Reading(memory="1 GB")).x, np.ndarray)
    monkeypatch.setattr(memory, "BESIDE", 10**9)  # nothing is left for data
    dataset = load(str(npy), Reading(memory="1 GB"))
    assert isinstance(dataset.x, Packed)
    assert any("packed into" in note for note in dataset.notes)


def test_what_was_packed_is_used_again_wherever_it_lies(npy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = pack_of(npy)
    monkeypatch.setattr(pack, "_write", None)  # to pack again would fail
    assert pack_of(npy).sha256 == first.sha256
    (tmp_path / "elsewhere").mkdir()
    for name in ("x.npy", "y.npy"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    again = pack_of(tmp_path / "elsewhere" / "x.npy")
    assert again.sha256 == first.sha256
    assert again.source == str(tmp_path / "elsewhere" / "x.npy")
    assert len(entries()) == 1


def test_a_hash_is_remembered_until_the_file_changes(npy: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("x.npy", "y.npy"):
        os.utime(npy.parent / name, ns=(1, time.time_ns() - 10**10))  # ten seconds old: it will not change unnoticed
    first = pack_of(npy)
    hashed = []
    monkeypatch.setattr(content.hashlib, "sha256", _counting(content.hashlib.sha256, hashed))
    assert pack_of(npy).sha256 == first.sha256
    assert sum(map(len, hashed)) < 4 * X.nbytes / 5  # names and settings only
    changed = X.copy()
    changed[7, 0] += 1
    np.save(npy, changed)
    other = pack_of(npy)
    assert other.sha256 != first.sha256
    np.testing.assert_array_equal(other.x[7], changed[7])
    assert len(entries()) == 2


def _counting(sha256: Any, seen: list[bytes]) -> Any:
    class Counting:
        def __init__(self, data: bytes = b"") -> None:
            self.real = sha256()
            self.update(data)

        def update(self, data: bytes) -> None:
            seen.append(bytes(data))
            self.real.update(data)

        def hexdigest(self) -> str:
            return self.real.hexdigest()

    return Counting


def test_the_seed_counts_only_where_something_is_fitted(npy: Path, tmp_path: Path):
    assert pack_of(npy, seed=0).sha256 == pack_of(npy, seed=1).sha256
    table, reading = tables(tmp_path), Reading(label="label", inputs="a,b")
    assert pack_of(table, reading, 0).sha256 != pack_of(table, reading, 1).sha256


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_interrupted_packing_leaves_nothing(npy: Path, stop: type[BaseException], monkeypatch: pytest.MonkeyPatch):
    def interrupt(share: float, text: str) -> None:
        if text.startswith("packing"):
            raise stop

    with pytest.raises(stop):
        pack_of(npy, on_progress=interrupt)
    assert entries() == []
    np.testing.assert_array_equal(pack_of(npy).x[:], X)


def test_progress_goes_up_to_all(npy: Path):
    told: list[tuple[float, str]] = []
    pack_of(npy, on_progress=lambda share, text: told.append((share, text)))
    assert told[-1] == (1.0, "packing x.npy")
    assert all(0 <= share <= 1 for share, _ in told)


def test_what_a_killed_process_left_is_removed_and_what_another_works_on_is_not(npy: Path):
    folder = cache_folder()
    dead, alive, young = (folder / f".{name}{cache._PART}" for name in ("dead", "alive", "young"))
    for part in (dead, alive, young):
        part.mkdir(parents=True)
        (part / "x-00000.npy").write_bytes(b"half")
    handle = cache._locked(alive)
    for part in (dead, alive):
        os.utime(part, (time.time() - 100, time.time() - 100))
    pack_of(npy)
    assert [part.exists() for part in (dead, alive, young)] == [False, True, True]
    handle.close()


def test_of_two_that_pack_the_same_one_wins(tmp_path: Path):
    entry = tmp_path / "cache" / "same"

    def write(folder: Path, complete: Any, text: str) -> None:
        (folder / "x-00000.npy").write_text(text)
        complete({"by": text})

    with new_entry(entry) as (one, complete_one):
        with new_entry(entry) as (other, complete_other):
            write(other, complete_other, "first")
        write(one, complete_one, "second")
    manifest, _ = found_entry(entry)
    assert manifest is not None
    assert manifest["by"] == "first"
    assert entries() == [entry]


def test_an_entry_without_a_manifest_is_none(npy: Path):
    first = pack_of(npy)
    (entries()[0] / cache.MANIFEST).unlink()
    again = pack_of(npy)
    assert again.sha256 == first.sha256
    np.testing.assert_array_equal(again.x[:], X)
    assert any("damaged" in note for note in again.notes)


@pytest.mark.parametrize("how", ["cut", "changed"])
def test_a_damaged_shard_is_packed_anew_and_said(npy: Path, how: str):
    shard = pack_of(npy).x.shards[1]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data[:-5] if how == "cut" else data)
    again = pack_of(npy)
    np.testing.assert_array_equal(again.x[:], X)
    assert any("damaged (x-00001.npy has" in note for note in again.notes)
    assert len(entries()) == 1


def test_a_change_that_leaves_size_and_time_is_seen_by_checksums(npy: Path):
    shard = pack_of(npy).x.shards[1]
    state, data = shard.stat(), bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    os.utime(shard, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert found_entry(entries()[0])[0] is not None
    assert found_entry(entries()[0], checksums=True) == (None, "x-00001.npy has another checksum")


def test_little_room_is_said_before(npy: Path, monkeypatch: pytest.MonkeyPatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(pack.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError) as error:
        pack_of(npy)
    assert re.search("packing takes .* GB, but only .* are free", the_sentence(error))
    assert entries() == []


def test_a_full_disk_is_one_sentence(npy: Path, monkeypatch: pytest.MonkeyPatch):
    def full(self: Any, x: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards.Shards, "add", full)
    with pytest.raises(DataError) as error:
        pack_of(npy)
    assert "No space left on device" in the_sentence(error)
    assert entries() == []


def test_what_is_not_finite_is_named_by_its_place_in_the_whole(npy: Path):
    bad = X.copy()
    bad[217, 3] = np.inf
    np.save(npy, bad)
    with pytest.raises(DataError, match=r"\[217, 3\]"):
        pack_of(npy)
    assert entries() == []


@pytest.fixture
def array(tmp_path: Path) -> tuple[np.ndarray, Packed]:
    """Returns an array of 23 examples, and the same in shards of 7."""
    whole = np.arange(23 * 3, dtype=np.float32).reshape(23, 3)
    files = [tmp_path / f"{i}.npy" for i in range(4)]
    for i, file in enumerate(files):
        np.save(file, whole[i * 7 : (i + 1) * 7])
    return whole, Packed(files, whole.shape, np.float32, 7)


KEYS = [3, -1, slice(None), slice(5, 16), slice(20, 2, -3), slice(4, 4), [6, 7, 8, 0, 22, 6], [[1, 2], [3, -4]], []]


@pytest.mark.parametrize("key", [*KEYS, np.arange(23) % 3 == 0], ids=str)
def test_indexed_as_numpy_does(array: tuple[np.ndarray, Packed], key: Any):
    whole, there = array
    key = np.array(key, np.int64) if isinstance(key, list) else key
    np.testing.assert_array_equal(there[key], whole[key])
    assert there[key].shape == whole[key].shape


@pytest.mark.parametrize("key", [23, -24, [0, 23], 1.5, np.zeros(5, bool)], ids=str)
def test_what_is_no_index_is_refused(array: tuple[np.ndarray, Packed], key: Any):
    with pytest.raises(IndexError):
        array[1][key]


def test_sizes_are_those_of_the_array_and_it_is_never_made_one(array: tuple[np.ndarray, Packed]):
    whole, there = array
    for name in ("shape", "dtype", "ndim", "size", "nbytes"):
        assert getattr(there, name) == getattr(whole, name)
    assert len(there) == 23
    with pytest.raises(DataError, match="larger than the memory given"):
        np.asarray(there)


@pytest.mark.parametrize("way", ["batch", "one by one", "by seeking", "announced", "some kept", "all kept"])
def test_every_way_to_read_gives_the_same(way: str, array: tuple[np.ndarray, Packed], monkeypatch: pytest.MonkeyPatch):
    whole, there = array
    if way in ("one by one", "by seeking"):
        monkeypatch.setattr(reads, "_taken", lambda: None)
    if way == "by seeking":
        monkeypatch.setattr(reads, "_read_at", reads._read_by_seeking)
    if "kept" in way:
        there = there.keep(5 * 12 if way == "some kept" else 1e9)
    if way == "announced":
        monkeypatch.setattr(packed, "_READ_SECONDS", -1.0)  # every read counts as slow
    monkeypatch.setattr(reads, "_MOST", 4)
    monkeypatch.setattr(reads, "_free", [])
    for _ in range(3):
        where = RNG.integers(0, 23, 50)
        np.testing.assert_array_equal(there[where], whole[where])


@pytest.mark.parametrize("batch", [True, False])
def test_a_file_that_became_shorter_is_one_sentence(
    array: tuple[np.ndarray, Packed], batch: bool, monkeypatch: pytest.MonkeyPatch
):
    if not batch:
        monkeypatch.setattr(reads, "_taken", lambda: None)
    there = array[1]
    os.truncate(there.shards[2], 140)
    np.testing.assert_array_equal(there[:14], array[0][:14])
    with pytest.raises(DataError) as error:
        there[np.array([1, 20, 3])]
    assert "shorter" in the_sentence(error)


def test_files_are_closed_when_nobody_holds_the_array(array: tuple[np.ndarray, Packed]):
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("open files are listed under /proc, which this system lacks")
    whole, there = array

    def opened() -> int:
        """Returns how many of the array's files are open; other files of this process come and go."""
        return sum(os.path.realpath(one) in map(str, there.shards) for one in folder.iterdir())

    before = opened()
    more = Packed(there.shards, there.shape, np.float32, 7)
    other = more.as_type(np.int32)
    del more
    np.testing.assert_array_equal(other[:], whole.astype(np.int32))
    assert opened() == before + 4
    del other
    assert opened() == before


def test_manifest_says_what_is_there(npy: Path):
    dataset = pack_of(npy)
    manifest = json.loads((entries()[0] / cache.MANIFEST).read_text())
    assert {file["name"] for file in manifest["files"]} >= {path.name for path in dataset.x.shards} | {"y.npy"}
    joined = np.concatenate([np.load(path) for path in dataset.x.shards])  # any tool reads them
    np.testing.assert_array_equal(joined, X)
