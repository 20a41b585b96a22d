"""Which process of a run this is: options before environment, everything or a sentence."""

import pytest

from backbeat.errors import SettingsError
from backbeat.join import LostProcessError, Place, as_lost, place_of

ENVIRONMENT = {"BACKBEAT_COORDINATOR": "n:1", "BACKBEAT_PROCESS_COUNT": "3", "BACKBEAT_PROCESS_INDEX": "2"}


def test_options_count_before_the_environment():
    assert place_of(None, None, None, ENVIRONMENT) == Place("n:1", 3, 2)
    assert place_of("m:2", None, 0, ENVIRONMENT) == Place("m:2", 3, 0)
    assert place_of("auto", None, None, {}) == Place("auto")


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({**ENVIRONMENT, "BACKBEAT_PROCESS_INDEX": "two"}, "BACKBEAT_PROCESS_INDEX='two' must be a whole number"),
        ({**ENVIRONMENT, "BACKBEAT_PROCESS_INDEX": "3"}, "--process-index 3 of --process-count 3 is none"),
        ({"BACKBEAT_COORDINATOR": "n:1"}, "needs --process-count N and --process-index I"),
        ({"BACKBEAT_PROCESS_COUNT": "2"}, "need --coordinator HOST:PORT"),
        ({"BACKBEAT_COORDINATOR": ":1"}, "is no address"),
        ({"BACKBEAT_COORDINATOR": "auto", "BACKBEAT_PROCESS_COUNT": "2"}, "finds the number of processes by itself"),
    ],
)
def test_what_is_missing_or_wrong_is_said(environment: dict[str, str], sentence: str):
    with pytest.raises(SettingsError, match=sentence):
        place_of(None, None, None, environment)


def test_only_errors_of_the_network_mean_that_a_process_is_gone():
    lost = as_lost(RuntimeError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer [127.0.0.1]:24755\nmore"))
    assert isinstance(lost, LostProcessError)
    assert lost.exit_code == 1
    assert "Connection closed by peer" in str(lost)
    assert "\n" not in str(lost)
    full = RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes")
    assert as_lost(full) is full
