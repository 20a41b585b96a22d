"""Which cadences a comparison takes where the data has fewer examples than the default batches."""

import pytest

from backbeat.compare.asked import DEFAULT_CADENCES, cadences_of, left_out


@pytest.mark.parametrize(
    ("n_examples", "out"),
    [(20, "32,64,128,256"), (120, "128,256"), (128, "128,256"), (129, "256"), (256, "256"), (257, ""), (1437, "")],
)
def test_default_batches_that_are_all_the_data_or_more_are_left_out(n_examples, out):
    assert ",".join(map(str, left_out(cadences_of(DEFAULT_CADENCES), n_examples))) == out


def test_what_a_user_asked_for_is_never_left_out():
    assert left_out(cadences_of("1,32,256,dataset"), 20) == []
