"""Training from files: the weights are those in memory, each example comes as often, errors are one sentence."""

import os
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import backbeat as bb
from backbeat.advance import Engine
from backbeat.clock import Duration
from backbeat.compare.sweep import Together
from backbeat.config import Settings, resolve
from backbeat.data import Dataset, from_arrays
from backbeat.data.streaming import host, packed
from backbeat.data.streaming.ahead import Ahead
from backbeat.data.streaming.host import HostRows
from backbeat.data.streaming.packed import Packed
from backbeat.errors import DataError
from backbeat.stretch import fetches

N, PER_SHARD = 101, 17
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(N, 5)).astype(np.float32), RNG.integers(0, 3, N).astype(np.int32)
WEIGHT = RNG.random(N).astype(np.float32)


def in_files(folder: Path, *, weight: bool = False) -> tuple[Dataset, Dataset]:
    """Returns a data set in memory, and the same with its inputs in shards."""
    shards = [folder / f"{i}.npy" for i in range(-(-N // PER_SHARD))]
    for i, shard in enumerate(shards):
        np.save(shard, X[i * PER_SHARD : (i + 1) * PER_SHARD])
    here = from_arrays(X, Y, WEIGHT if weight else None)
    return here, replace(here, x=Packed(shards, X.shape, np.float32, PER_SHARD, "a hash"))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Dataset, Dataset]:
    return in_files(tmp_path)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Returns what programs fetch, in their order."""
    seen: list[np.ndarray] = []
    take = Ahead.take

    def noted(self: Ahead, where: np.ndarray, out: np.ndarray) -> None:
        seen.append(np.array(where))
        take(self, where, out)

    monkeypatch.setattr(Ahead, "take", noted)
    return seen


@pytest.fixture
def missed(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Returns what was asked for and was not what had been foreseen next."""
    seen: list[np.ndarray] = []
    start, take = Ahead.__init__, Ahead.take
    expected: dict[int, list[np.ndarray]] = {}

    def started(self: Ahead, array: Packed, requests: Iterable[np.ndarray], *more: Any) -> None:
        expected[id(self)] = list(requests)
        start(self, array, expected[id(self)], *more)

    def noted(self: Ahead, where: np.ndarray, out: np.ndarray) -> None:
        following = expected[id(self)].pop(0) if expected[id(self)] else np.empty(0, np.int64)
        if not np.array_equal(following.reshape(-1), where.reshape(-1)):
            seen.append(np.array(where))
        take(self, where, out)

    monkeypatch.setattr(Ahead, "__init__", started)
    monkeypatch.setattr(Ahead, "take", noted)
    return seen


CADENCES = [
    {"every": 1},
    {"every": 32},
    {"every": 32, "short_batch": "drop"},
    {"every": 32, "short_batch": "carry"},
    {"every": 32, "block": 9},
    {"every": "dataset"},
    {"every": "dataset", "block": 9},
    {"every": "8 repeat until correct at most 3"},
    {"every": "8 then 20 after 2 epochs", "order": "with replacement"},
]


@pytest.mark.parametrize("weight", [False, True])
@pytest.mark.parametrize("settings", CADENCES, ids=str)
@pytest.mark.sample(5)
def test_the_bits_are_those_of_a_run_in_memory(settings: dict, weight: bool, tmp_path: Path):
    """Bit for bit: the same numbers come into the same program; only how they come there differs."""
    pair = in_files(tmp_path, weight=weight)
    given = {"duration": "3 epochs", "evaluate": "1 epoch", "held_out": 0.2, **settings}
    here, there = (bb.fit(bb.mlp((4,)), data, **given) for data in pair)
    np.testing.assert_array_equal(there.theta, here.theta)
    for name in ("train_loss_mean", "held_out_accuracy"):
        np.testing.assert_array_equal(_known(there.history[name]), _known(here.history[name]))


def _known(column: Any) -> np.ndarray:
    """Returns a column without its gaps: how many stretches a run has depends on its speed."""
    column = np.asarray(column, np.float64)
    return column[np.isfinite(column)][-3:]


def test_a_full_batch_in_blocks_is_one_update_an_epoch_as_in_memory(pair: tuple[Dataset, Dataset]):
    """To rounding: sums of 101 float32 in blocks of 9 and in one; 30 ulp of numbers of about 1."""
    here = bb.fit(bb.mlp((4,)), pair[0], every="dataset", duration="5 epochs", held_out=0)
    there = bb.fit(bb.mlp((4,)), pair[1], every="dataset", block=9, duration="5 epochs", held_out=0)
    assert there.clock.updates == 5
    np.testing.assert_allclose(there.theta, here.theta, rtol=0, atol=4e-6)


@pytest.mark.parametrize("every", [1, 7, 32])
def test_each_example_comes_exactly_once_an_epoch_in_an_order_over_all(
    every: int, pair: tuple[Dataset, Dataset], log: list[np.ndarray]
):
    engine = Engine(resolve(bb.mlp((4,)), pair[1], Settings(every=every, held_out=0.0, duration="3 epochs")))
    engine.compile()
    orders = []
    for epoch in range(1, 4):
        log.clear()
        before = engine.cursor
        while engine.clock.epochs < epoch:
            engine.advance([Duration(float(epoch), "epochs")])
        # a chunk may reach over the end of a stretch: what the plan counts is what was trained on
        stretch = engine.job.plan.stretch(before, engine.clock.updates - before.batches)
        used = np.concatenate([row[:size] for row, size in zip(stretch.indices, stretch.sizes, strict=True)])
        np.testing.assert_array_equal(np.sort(used), np.arange(N))
        assert set(used.tolist()) <= set(np.concatenate([where.reshape(-1) for where in log]).tolist())
        orders.append(used)
    assert not np.array_equal(orders[0], orders[1])
    reach = np.abs(orders[0] - np.arange(N)).max()
    assert reach > N // 2  # no window: examples come from far away


@pytest.mark.parametrize("settings", [one for one in CADENCES if "repeat" not in str(one)], ids=str)
@pytest.mark.sample(3)
def test_what_is_foreseen_is_what_is_fetched(
    settings: dict, pair: tuple[Dataset, Dataset], log: list[np.ndarray], missed: list[np.ndarray]
):
    given = Settings(**{"held_out": 0.2, "duration": "4 epochs", **settings})
    engine = Engine(resolve(bb.mlp((4,)), pair[1], given))
    engine.compile()
    log.clear()
    for _ in range(3):
        ahead = engine._plan(engine.cursor, [Duration(4.0, "epochs")], 1.0)
        wanted = [where.reshape(-1) for where in fetches(ahead.form, ahead.rows)]
        engine._ahead = ahead
        engine.advance([])
        assert len(log) == len(wanted)
        for one, other in zip(log, wanted, strict=True):
            np.testing.assert_array_equal(one.reshape(-1), other)
        log.clear()
    assert missed == []


def test_a_whole_run_fetches_what_was_foreseen(pair: tuple[Dataset, Dataset], missed: list[np.ndarray]):
    bb.fit(bb.mlp((4,)), pair[1], every=16, duration="3 epochs", evaluate="1 epoch")
    assert missed == []


@pytest.mark.slow
def test_a_sweep_in_two_threads_gives_the_same_bits(pair: tuple[Dataset, Dataset], missed: list[np.ndarray]):
    found = []
    for data in pair:
        jobs = [resolve(bb.mlp((4,)), data, Settings(every=8, seed=seed, duration="1000 updates")) for seed in range(2)]
        runs = Together(jobs, (0.1, 0.2, 0.3), jobs[0].device_data())
        runs.advance(20)
        losses = [runs.scores(["train"])["train"][s][r]["loss"] for s in range(2) for r in range(3)]
        found.append([*(np.asarray(leaf) for leaf in jax.tree.leaves(runs.states)), np.asarray(losses)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert missed == []


@pytest.mark.slow
def test_a_comparison_runs_from_files(pair: tuple[Dataset, Dataset]):
    result = bb.compare(bb.mlp((4,)), pair[1], every=[8, "dataset"], target="accuracy>=0.2", budget="120 s", seeds=3)
    assert len(result.cadences) == 2


def numbered(n: int, folder: Path) -> Packed:
    np.save(folder / "n.npy", np.arange(n, dtype=np.float32)[:, None])
    return Packed([folder / "n.npy"], (n, 1), np.float32, n)


def test_what_was_not_foreseen_is_read_all_the_same(tmp_path: Path):
    array = numbered(50, tmp_path)
    asked = [np.arange(i, i + 5) for i in (0, 5, 20, 10, 40, 15, 15)]
    ahead = Ahead(array, [np.arange(i, i + 5) for i in (0, 5, 10, 15, 45)], n_bytes=40)
    for where in asked:
        out = np.full((5, 1), np.nan, np.float32)
        ahead.take(where, out)
        np.testing.assert_array_equal(out[:, 0], where)


def test_several_threads_take_from_one_reader(tmp_path: Path):
    array, n = numbered(4000, tmp_path), 200
    requests = [RNG.integers(0, 4000, 20) for _ in range(n)]
    ahead, wrong = Ahead(array, requests, n_bytes=400), []

    def take(part: slice) -> None:
        for where in requests[part]:
            out = np.empty((20, 1), np.float32)
            ahead.take(where, out)
            wrong.extend([] if np.array_equal(out[:, 0], where) else [where])

    threads = [threading.Thread(target=take, args=(slice(k, None, 2),)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_a_disk_is_told_what_comes_next_once_and_only_where_it_was_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    array, told = numbered(100, tmp_path), []
    monkeypatch.setattr(Packed, "announce", lambda self, where: told.append(where.tolist()))
    requests = [np.arange(i, i + 5) for i in range(0, 50, 5)]
    ahead, out = Ahead(array, requests, n_bytes=40), np.empty((5, 1), np.float32)
    monkeypatch.setattr(packed, "_READ_SECONDS", 1e9)
    for where in requests[:2]:
        ahead.take(where, out)
    assert told == []  # all of it was in the page cache
    monkeypatch.setattr(packed, "_READ_SECONDS", -1e9)  # every read counts as one that waited
    for where in requests[2:]:
        ahead.take(where, out)
    # two requests of 20 bytes make the 40 that may be announced: from the third on, once the second had waited
    assert told == [where.tolist() for where in requests[4:]]


def test_an_interrupted_run_ends_at_once(pair: tuple[Dataset, Dataset]):
    events: Any = bb.train(bb.mlp((4,)), pair[1], every=1, duration="1000000 updates")
    for _ in range(4):
        next(events)
    finished = events.throw(KeyboardInterrupt)
    assert finished.reason == "interrupted"


@pytest.mark.parametrize("every", [1, 8, "dataset"])
def test_a_file_that_is_cut_while_training_is_one_sentence(every: Any, pair: tuple[Dataset, Dataset]):
    events = bb.train(bb.mlp((4,)), pair[1], every=every, duration="1000000 updates", evaluate="never")
    next(events)
    next(events)
    os.truncate(pair[1].x.shards[2], 200)
    with pytest.raises(DataError) as error:
        for _ in events:
            pass
    assert str(error.value).startswith("packed data cannot be read any more")
    assert "\n" not in str(error.value)
    assert host._problems == []


def test_rows_in_files_are_those_of_the_array(pair: tuple[Dataset, Dataset]):
    rows = HostRows(pair[1].x)
    where = jax.numpy.array([[100, 0], [17, 1000]])  # beyond the end: the nearest, as in any compiled program
    np.testing.assert_array_equal(jax.jit(lambda rows, where: rows[where])(rows, where), X[[[100, 0], [17, 100]]])


def test_the_hash_of_the_data_is_that_of_what_was_packed(pair: tuple[Dataset, Dataset]):
    assert pair[1].sha256 == "a hash"
