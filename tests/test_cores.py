"""Work over several threads: in order, with its errors, and without one kind of work waiting for another."""

import pytest

from backbeat import cores
from backbeat.cores import asked_cores, in_threads


@pytest.fixture(params=[1, 3])
def n(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(cores, "n_cores", lambda: request.param)
    cores._pool.cache_clear()
    return request.param


def test_threads_keep_the_order_and_pass_errors_on(n: int):
    assert in_threads(lambda k: k * k, range(5)) == [0, 1, 4, 9, 16]
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda k: 1 // k, [1, 0])


def test_work_that_waits_for_work_of_another_kind_ends(n: int):
    inner = lambda k: in_threads(lambda j: k * j, range(3), "inner")  # noqa: E731
    assert in_threads(inner, range(2 * n)) == [[0, k, 2 * k] for k in range(2 * n)]


def test_what_jax_was_told_of_cores_is_read_as_it_reads_it(monkeypatch: pytest.MonkeyPatch):
    for name in ("PJRT_NPROC", "NPROC"):
        monkeypatch.delenv(name, raising=False)
    assert asked_cores() is None
    monkeypatch.setenv("NPROC", "4")
    assert asked_cores() == "4"
    monkeypatch.setenv("PJRT_NPROC", "2")
    assert asked_cores() == "2"
