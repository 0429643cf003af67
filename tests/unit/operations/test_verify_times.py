"""An event may precede its predecessor only where it names that one's time, which a wrong clock had set."""

from datetime import timedelta

import pytest

from operations.verify.checks.stored_streams import check_versions
from operations.verify.sources import StoredStream
from tests.support.ledger import histories

START = histories.START


@pytest.mark.parametrize(
    ("lead", "recorded", "accepted"),
    [
        (timedelta(hours=3), timedelta(hours=3), True),
        (timedelta(hours=3), timedelta(hours=2), False),
        (timedelta(hours=3), None, False),
        (timedelta(seconds=1), timedelta(seconds=1), False),
        (timedelta(seconds=1, microseconds=1), timedelta(seconds=1, microseconds=1), True),
        (timedelta(0), None, True),
    ],
)
def test_a_time_that_steps_back(lead: timedelta, recorded: timedelta | None, accepted: bool) -> None:
    metadata = {} if recorded is None else {"time_set_aside": (START + recorded).isoformat()}
    first = histories.recorded(1, histories.written("c-1"), at=START + lead)
    second = histories.recorded(2, histories.endorsed("c-1"), at=START, **metadata)
    problems = check_versions(StoredStream("ledger.cheque.c-1", None, [first, second]))
    assert all("was recorded at" not in problem.text for problem in problems) == accepted
