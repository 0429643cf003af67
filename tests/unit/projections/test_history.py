"""The history entry of an event: who caused it, when, and by which command."""

from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.message import Message

from contracts.envelope import RecordedEvent
from operations.verify.events import describe_all
from operations.verify.model import Event
from projector.history import create_entry, entry_factory
from projector.projection import Projection
from tests.support.ledger.histories import endorsed, paid, recorded
from tests.support.ledger.projections import ACCOUNTS, HISTORIES
from tests.support.ledger.stubs import commands, events, types

AT = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
ENDORSED = events.ChequeEndorsed(cheque_id="c-1", endorser="bob")
METADATA = {
    "actor": "ada",
    "on_behalf_of": "bob",
    "command": "acme.ledger.v1.EndorseCheque",
    "correlation_id": "c-1",
    "causation_id": "r-1",
    "traceparent": "00-1-1-00",
}
NONE = types.ChequeHistory()


def record(**metadata: str) -> RecordedEvent:
    name, data = ENDORSED.DESCRIPTOR.full_name, ENDORSED.SerializeToString()
    return RecordedEvent("ledger.cheque.c-1", 3, name, data, AT, 9, metadata)


def test_an_entry_names_the_event_its_command_and_its_actor() -> None:
    entry = create_entry(NONE, record(**METADATA))
    assert (entry.version, entry.record_time.ToDatetime(UTC)) == (3, AT)
    assert (entry.actor, entry.on_behalf_of) == ("ada", "bob")
    assert (entry.command, entry.request_id) == ("acme.ledger.v1.EndorseCheque", "r-1")
    assert (entry.correlation_id, entry.event_type) == ("c-1", "acme.ledger.v1.ChequeEndorsed")
    endorsed = events.ChequeEndorsed()
    assert entry.event.Unpack(endorsed)
    assert endorsed == ENDORSED


@pytest.mark.parametrize("metadata", [METADATA, {}], ids=["full", "empty"])
def test_verify_expects_the_same_entry(metadata: dict[str, str]) -> None:
    event = record(**metadata)
    assert list(describe_all([Event(event, ENDORSED)])) == [create_entry(NONE, event)]


def test_entries_of_a_context_have_the_bytes_of_an_entry() -> None:
    event = record(**METADATA)
    own_entry = entry_factory(types.ChequeHistoryEntry)(NONE, event)
    assert own_entry.SerializeToString() == create_entry(NONE, event).SerializeToString()


def test_a_message_gets_the_fields_that_it_shares_with_an_entry() -> None:
    expected = types.Entry(version=3)
    expected.record_time.FromDatetime(AT)
    assert entry_factory(types.Entry)(NONE, record(**METADATA)) == expected
    cheque = entry_factory(types.Cheque, record_time="write_time")(NONE, record(**METADATA))
    assert cheque == types.Cheque(version=3, write_time=expected.record_time)


@pytest.mark.parametrize(
    ("message", "record_time", "problem"),
    [
        (types.Cheque, "record_time", "Cheque.record_time must have the type"),
        (types.Cheque, "void_reason", "Cheque.void_reason must have the type"),
        (commands.Share, "amount", "Share.version must have the type"),
    ],
)
def test_a_message_without_version_or_time_is_refused(
    message: type[Message], record_time: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        entry_factory(message, record_time=record_time)


@pytest.mark.parametrize("projection", [HISTORIES, ACCOUNTS], ids=["history", "account"])
def test_a_write_does_not_grow_with_the_length_of_the_history(projection: Projection[Any]) -> None:
    def measure(length: int) -> int:
        view = projection.view.message(version=length)
        event = paid("a-1", 5) if projection is ACCOUNTS else endorsed("c-1")
        rendered, _, error = projection.fold(view, [recorded(length + 1, event, at=AT)])
        assert rendered is not None, error
        return len(rendered.data) + sum(len(entry) for _, entry in rendered.history_entries)

    assert measure(100_000) <= measure(10) + 8, "the versions alone take more bytes"
