"""A full batch over an array of 50 blocks needs the array once, and little more: measured in processes of their own."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("resource", reason="peak memory is read with getrusage, which this system lacks")


@pytest.fixture(scope="module")
def memory() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "bench" / "memory.py"
    spec = importlib.util.spec_from_file_location("bench_memory", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bound(memory: ModuleType) -> float:
    """Returns the bytes allowed: three blocks' numbers, 40 bytes of labels, indices and sort keys an example, 32 MB.

    Two processes that do the same differ by up to 28 MB, by what allocators and threads keep: so much was seen either
    way. It makes 59 MB; a copy of the array would be 321 MB, and one of the held-out part alone 64 MB.
    """
    return 3 * 4 * (memory.FEATURES + memory.HIDDEN) * memory.BLOCK + 40 * memory.EXAMPLES + 32e6


def test_a_full_batch_needs_the_array_once(memory: ModuleType):
    assert memory.above_the_array(memory.EXAMPLES, 0.2, "1 epoch", 0) <= bound(memory)


@pytest.mark.slow
@pytest.mark.parametrize(("held_out", "evaluate"), [(0.0, "never"), (0.0, "1 epoch"), (0.2, "never")])
def test_so_it_does_however_it_is_split_and_evaluated(memory: ModuleType, held_out: float, evaluate: str):
    assert memory.above_the_array(memory.EXAMPLES, held_out, evaluate, 0) <= bound(memory)


@pytest.mark.slow
def test_an_array_of_another_alignment_is_not_copied(memory: ModuleType):
    """JAX would copy what does not begin at a multiple of 64 bytes, as NumPy's own large arrays do not."""
    assert memory.above_the_array(memory.EXAMPLES, 0.2, "1 epoch", 16) <= bound(memory)


@pytest.mark.slow
def test_a_small_one_is_copied_once(memory: ModuleType):
    """256 MiB are the most that is copied; also shows that the tests above would see a copy."""
    examples, array = memory.EXAMPLES // 2, 4 * memory.FEATURES * memory.EXAMPLES // 2
    assert 0.5 * array <= memory.above_the_array(examples, 0.0, "never", 16) <= array + bound(memory)
