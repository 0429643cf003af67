"""The lines about updates of views: one that was written, and one that failed."""

from datetime import UTC, datetime
from time import time_ns
from typing import Any

import pytest

from contracts.envelope import RecordedEvent
from projector.observer import create_observer
from projector.records import Parked, Record, Update
from tests.support.harness.log_lines import own_lines
from tests.support.ledger.stored_views import CHEQUE

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
METADATA = {"correlation_id": "c-7", "traceparent": f"00-{TRACE}-{SPAN}-01"}


def make_event(version: int) -> RecordedEvent:
    return RecordedEvent(
        stream="ledger.cheque.c-1",
        version=version,
        type="acme.ledger.v1.ChequeVoided",
        data=b"",
        recorded_at=datetime.now(UTC),
        position=version,
        metadata=METADATA,
    )


def log_update(**changes: Any) -> list[dict[str, Any]]:
    before = Record("c-1", None)
    fields = {"after": before, "content": None, "applied_events": (), "failed_event": None}
    with own_lines() as lines:
        create_observer(CHEQUE)([Update(before=before, started_ns=time_ns(), **{**fields, **changes})])
    return lines.all()


def test_an_update_is_logged_with_its_event_and_its_trace() -> None:
    (line,) = log_update(applied_events=[make_event(1)])
    assert (line["message"], line["eventId"]) == ("Read model updated", "ledger.cheque.c-1@1")
    assert (line["correlationId"], line["trace_id"], line["span_id"]) == ("c-7", TRACE, SPAN)


@pytest.mark.parametrize("attempts", [1, 6])
def test_an_update_that_failed_is_logged_with_its_event(attempts: int) -> None:
    parked = Parked("ledger.cheque.c-1", 2, "KeyError: 'x'", 0, attempts, None, "parked")
    after = Record("c-1", None, parked=parked)
    failed, parking = log_update(after=after, failed_event=make_event(2))
    assert (failed["message"], parking["message"]) == ("Read model update failed", "Aggregate parked")
    assert (failed["eventId"], failed["correlationId"]) == ("ledger.cheque.c-1@2", "c-7")
    assert (failed["stream"], failed["version"]) == ("ledger.cheque.c-1", 2)
    assert (failed["modelType"], failed["projection"]) == ("acme.ledger.v1.Cheque", CHEQUE.projection)
    assert (failed["error"], failed["attempts"], failed["trace_id"]) == ("KeyError: 'x'", attempts, TRACE)
