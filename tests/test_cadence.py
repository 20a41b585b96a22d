"""Cadence: its text form is read back, and M comes out of it for any size of data. Wrong forms: test_wording.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbeat.cadence import Repeat, every

SIZES = st.one_of(st.integers(1, 10**6), st.sampled_from(["dataset", "10%", "2.5%", "100%"]))
UNTIL = st.one_of(st.just("correct"), st.floats(1e-3, 10).map(lambda bound: f"loss<{bound:.4g}"))
RESTS = st.one_of(st.sampled_from(["all", "none"]), st.integers(1, 1000))


@given(
    SIZES,
    st.none() | st.tuples(UNTIL, st.integers(1, 100), RESTS),
    st.sampled_from(["epochs", "updates", "examples"]),
    st.dictionaries(st.integers(1, 1000), SIZES, max_size=3),
)
def test_the_text_form_is_read_back(size: int | str, repeated: tuple | None, unit: str, changes: dict):
    cadence = every(size)
    if repeated is not None:
        until, at_most, rest = repeated
        cadence = cadence.repeat(until=until, at_most=at_most, rest=rest)
    for start in sorted(changes):
        cadence = cadence.then(after=f"{start} {unit}", every=changes[start])
    assert every(str(cadence)) == cadence


@pytest.mark.parametrize(
    ("when", "n", "sizes"),
    [
        (1, 1797, (1,)),
        ("32", 1797, (32,)),
        ("1_000", 1797, (1000,)),
        ("dataset", 1797, (1797,)),
        ("DataSet", 5, (5,)),
        ("10%", 1797, (180,)),
        ("0.1%", 1797, (2,)),
        ("100%", 7, (7,)),
        ("32 then 128 after 10 epochs then dataset after 20 epochs", 1797, (32, 128, 1797)),
        ("noise 8 to 64", 1797, (8, 16, 32, 64)),
        ("noise 10 to 5%", 1797, (10, 20, 40, 80)),
        ("NOISE", 33, (2, 4, 8, 16, 32)),
    ],
)
def test_sizes(when: int | str, n: int, sizes: tuple[int, ...]):
    assert every(when).batch_sizes(n) == sizes


def test_a_cadence_is_taken_as_it_is():
    cadence = every(32)
    assert every(cadence) is cadence


@given(st.integers(2, 1000), st.sampled_from([2, 3, 100]) | st.just("dataset"))
def test_bounds_of_a_batch_that_follows_the_noise_are_read_back(low: int, times: int | str):
    high = times if isinstance(times, str) else low * times
    cadence = every("noise", low=low, high=high)
    assert every(str(cadence)) == cadence
    assert str(cadence) == f"noise {low} to {high}"
    assert every(f"noise {low} to {high}") == cadence


def test_noise_without_bounds_is_any_batch_that_shows_noise():
    assert str(every("noise")) == "noise 2 to dataset"
    assert str(every("noise", low=8)) == "noise 8 to dataset"
    assert str(every("noise", high=64)) == "noise 2 to 64"


def test_repeat_and_then_read_from_text_equal_those_made_by_methods():
    text = every("1 repeat until loss<0.1 at most 10 rest 50 then 8 after 2 epochs")
    made = every(1).repeat(until="loss<0.1", at_most=10, rest=50).then(after="2 epochs", every=8)
    assert text == made
    assert text.repeated == Repeat("loss<0.1", 10, 50)
    assert text.repeated is not None
    assert text.repeated.loss_below == 0.1


def test_spellings_of_the_bound():
    assert [Repeat(until, 1).loss_below for until in ("loss<0.5", " loss <= 0.5 ", "loss<5e-1", "correct")] == [
        0.5, 0.5, 0.5, None,
    ]  # fmt: skip
