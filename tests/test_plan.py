"""The plan: what each update uses, for every batch size, every number of examples and every cut into stretches."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbeat.cadence import Cadence, every
from backbeat.clock import Clock, Duration
from backbeat.order import KINDS, Order
from backbeat.plan import SHORT_BATCH, Cursor, Plan, Stretch, start_of, whole_updates

N = st.integers(1, 40)


def rows(stretch: Stretch) -> list[list[int]]:
    """Returns the batches as lists, what only fills up left out."""
    indices = np.broadcast_to(stretch.indices, (len(stretch), stretch.batch_size))
    return [row[:size].tolist() for row, size in zip(indices, stretch.sizes, strict=True)]


def by_hand(plan: Plan, n_batches: int) -> tuple[list[list[int]], list[int]]:
    """Returns the first batches and all that was set aside between them: one example after another, in a plain loop."""
    m, n = plan.cadence.batch_sizes(plan.n_examples)[0], plan.n_examples
    batches: list[list[int]] = []
    aside: list[int] = []
    epoch, batch = 0, []
    while len(batches) < n_batches:
        for example in plan.order.epochs(epoch, 1)[0].tolist():
            batch.append(example)
            if len(batch) == m:
                batches.append(batch)
                batch = []
        if batch and plan.short_batch == "keep":
            batches.append(batch)
        if batch and plan.short_batch == "drop":
            aside += batch
        batch = batch if plan.short_batch == "carry" else []
        epoch += 1
    # what is set aside is so as soon as no further full batch fits, not when the next batch begins
    ended = n_batches // (n // m) if plan.short_batch == "drop" else 0
    return batches[:n_batches], aside[: ended * (n % m)]


@given(N, st.data(), st.sampled_from(SHORT_BATCH), st.sampled_from(KINDS), st.integers(1, 30))
def test_batches_equal_a_plain_loop_over_the_examples(n: int, data: st.DataObject, short: str, kind: str, k: int):
    m = data.draw(st.integers(1, n))
    plan = Plan(Order(kind, 3, n), every(m), short)
    batches, aside = by_hand(plan, k)
    stretch = plan.stretch(Cursor(), k)
    if m == n and kind != "with replacement":  # the whole data set: the same examples, in their own order
        batches = [sorted(batch) for batch in batches]
    assert rows(stretch) == batches
    assert stretch.set_aside.tolist() == aside
    assert stretch.end.batches == k
    assert stretch.end.examples == sum(map(len, batches))


@given(N, st.data(), st.integers(1, 4))
def test_keep_uses_each_example_exactly_once_an_epoch(n: int, data: st.DataObject, epochs: int):
    m = data.draw(st.integers(1, n))
    plan = Plan(Order("reshuffled", 1, n), every(m))
    stretch = plan.stretch(Cursor(), 10_000, [Duration(float(epochs), "epochs")])
    assert (stretch.uses(n) == epochs).all()
    assert stretch.end == Cursor(epochs, 0, epochs * -(-n // m), epochs * n)
    cursor = Cursor()
    for _ in range(epochs):
        one = plan.stretch(cursor, -(-n // m))
        assert (one.uses(n) == 1).all()
        cursor = one.end


@given(N, st.data())
def test_drop_uses_or_sets_aside_each_example_once_an_epoch(n: int, data: st.DataObject):
    m = data.draw(st.integers(1, n))
    plan, cursor = Plan(Order("reshuffled", 1, n), every(m), "drop"), Cursor()
    for epoch in range(3):
        stretch = plan.stretch(cursor, n // m)
        cursor = stretch.end
        assert (stretch.uses(n) + np.bincount(stretch.set_aside, minlength=n) == 1).all()
        assert (stretch.sizes == m).all()
        assert (cursor.epoch, cursor.position) == (epoch + 1, 0)


@given(N, st.data())
def test_carry_fills_a_batch_up_from_the_next_epoch(n: int, data: st.DataObject):
    m = data.draw(st.integers(1, n))
    plan = Plan(Order("reshuffled", 1, n), every(m), "carry")
    stretch = plan.stretch(Cursor(), n)  # n batches of m are m whole epochs
    assert (stretch.uses(n) == m).all()
    assert (stretch.sizes == m).all()
    assert stretch.end == Cursor(m, 0, n, n * m)


CADENCES = st.sampled_from(
    ["1", "3", "7", "dataset", "50%", "2 then 5 after 1 epochs", "5 then 2 after 3 updates then 9 after 2 epochs",
     "4 then dataset after 20 examples", "dataset then 1 after 2 epochs"]
)  # fmt: skip


def cut(plan: Plan, pieces: Sequence[int], n: int, limits: Sequence[Duration] = ()) -> tuple[list, list, list, Cursor]:
    """Returns batches, positions and what was set aside of `n` batches, taken in pieces of these lengths."""
    cursor, batches, passed, aside, j = Cursor(), [], [], [], 0
    while cursor.batches < n:
        stretch = plan.stretch(cursor, min(pieces[j % len(pieces)], n - cursor.batches), limits if j % 2 else ())
        batches += [sorted(row) if len(row) == plan.n_examples else row for row in rows(stretch)]
        passed += stretch.passed.tolist()
        aside += stretch.set_aside.tolist()
        cursor, j = stretch.end, j + 1
    return batches, passed, aside, cursor


@given(CADENCES, st.sampled_from(SHORT_BATCH), st.sampled_from(KINDS), st.integers(9, 25), st.data())
def test_any_cut_into_stretches_gives_the_same_batches(
    cadence: str, short: str, kind: str, n: int, data: st.DataObject
):
    plan = Plan(Order(kind, 2, n), every(cadence), short)
    pieces = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=5))
    limits = [Duration(data.draw(st.integers(1, 30)) / 10, "epochs"), Duration(float(data.draw(N)), "updates")]
    assert cut(plan, pieces, 30, limits) == cut(plan, [1000], 30)


@given(CADENCES, st.sampled_from(SHORT_BATCH), st.integers(9, 25), st.integers(0, 29))
def test_a_run_resumed_at_any_batch_goes_on_undisturbed(cadence: str, short: str, n: int, at: int):
    plan = Plan(Order("reshuffled", 2, n), every(cadence), short)
    batches, _, _, _ = cut(plan, [1000], 40)
    stretch = plan.stretch(Cursor(), 30)
    inside = min(at, len(stretch))
    cursor = start_of(Cursor(), stretch, inside, n)
    assert cursor.batches == inside
    assert cursor.examples == sum(map(len, rows(stretch)[:inside]))
    after = plan.stretch(cursor, 5)
    found = [sorted(row) if len(row) == n else row for row in rows(after)]
    assert found == batches[inside : inside + len(after)]


@pytest.mark.parametrize(
    ("limit", "updates", "clock"),
    [
        ("3 epochs", 12, Clock(12, 30, 3.0)),
        ("0.3 epochs", 1, Clock(1, 3, 0.3)),
        ("5 updates", 5, Clock(5, 13, 1.3)),
        ("13 examples", 5, Clock(5, 13, 1.3)),
        ("14 examples", 6, Clock(6, 16, 1.6)),
    ],
)
def test_a_limit_ends_at_the_first_update_that_reaches_it(limit: str, updates: int, clock: Clock):
    plan = Plan(Order("reshuffled", 0, 10), every(3))  # 3 + 3 + 3 + 1 examples an epoch
    stretch = plan.stretch(Cursor(), 100, [Duration.parse(limit)])
    assert len(stretch) == updates
    assert plan.clock(stretch.end) == clock


def test_a_limit_that_rounding_made_a_little_too_large_ends_where_it_is_meant():
    plan = Plan(Order("as given", 0, 10), every(1))
    assert 3 * 0.1 > 0.3
    assert len(plan.stretch(Cursor(), 100, [Duration(3 * 0.1, "epochs")])) == 3


def test_the_batch_size_changes_where_it_is_told_to():
    plan = Plan(Order("as given", 0, 10), every("3 then 5 after 2 epochs then dataset after 3 epochs"))
    cursor, sizes = Cursor(), []
    for _ in range(4):
        stretch = plan.stretch(cursor, 100 if cursor.epoch < 3 else 2)
        sizes.append(stretch.sizes.tolist())
        cursor = stretch.end
    assert sizes == [[3, 3, 3, 1, 3, 3, 3, 1], [5, 5], [10, 10], [10, 10]]


def test_a_change_inside_an_epoch_goes_on_with_the_rest_of_it():
    plan = Plan(Order("as given", 0, 10), every("3 then 4 after 2 updates"))
    first = plan.stretch(Cursor(), 100)
    assert rows(first) == [[0, 1, 2], [3, 4, 5]]
    assert rows(plan.stretch(first.end, 4)) == [[6, 7, 8, 9], [0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_change_that_leaves_no_full_batch_sets_the_rest_of_the_epoch_aside():
    plan = Plan(Order("as given", 0, 10), every("4 then 7 after 1 updates"), "drop")
    second = plan.stretch(plan.stretch(Cursor(), 100).end, 1)
    assert rows(second) == [list(range(7))]
    assert second.set_aside.tolist() == [4, 5, 6, 7, 8, 9, 7, 8, 9]  # of the first epoch, then of the second


def test_weights_leave_out_what_only_fills_up():
    stretch = Plan(Order("as given", 0, 5), every(2)).stretch(Cursor(), 3)
    assert stretch.weights.tolist() == [[1, 1], [1, 1], [1, 0]]
    assert stretch.uses(5).tolist() == [1] * 5


@pytest.mark.parametrize(
    ("text", "updates"), [("2 epochs", 8), ("7 updates", 7), ("64 examples", 2), ("65 examples", 3)]
)
def test_updates_that_a_duration_takes(text: str, updates: int):
    assert whole_updates(Duration.parse(text), batch_size=32, n_examples=100) == updates


def test_a_cadence_that_is_a_value_is_the_one_given():
    assert Plan(Order("as given", 0, 5), Cadence(every(5).phases)).has_short_batches(5) is False
    assert Plan(Order("as given", 0, 5), every(2)).has_short_batches(2) is True
    assert Plan(Order("as given", 0, 5), every(2), "drop").has_short_batches(2) is False
