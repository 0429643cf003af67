"""The message of a recorded event, whatever its metadata holds."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from operations_server.records.event_messages import build_event

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def make_row(**metadata: Any) -> dict[str, Any]:
    return {
        "stream": "ledger.cheque.c-1",
        "version": 2,
        "position": 7,
        "type": "t.Unknown",
        "recorded_at": NOW,
        "metadata": json.dumps(metadata),
    }


def test_an_event_has_the_time_that_was_set_aside_before_it() -> None:
    event = build_event(make_row(actor="ada", time_set_aside="2026-01-01T15:00:00.000001+00:00"), b"")
    assert event.time_set_aside.ToDatetime(UTC) == datetime(2026, 1, 1, 15, 0, 0, 1, tzinfo=UTC)
    assert event.actor == "ada"


@pytest.mark.parametrize("time", [None, "", "yesterday", 7, [], "0001-01-01T00:00:00+14:00"])
def test_an_event_without_such_a_time_has_none(time: Any) -> None:
    assert not build_event(make_row(time_set_aside=time), b"").HasField("time_set_aside")
