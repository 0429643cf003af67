"""The history entry of an event: who caused it, when, and by which command."""

from datetime import UTC, datetime

import pytest
from diptych.banking.v1.types_pb2 import Transaction
from diptych.inventory.v1.types_pb2 import StockMovement
from diptych.ordering.v1.events_pb2 import OrderHeld
from diptych.ordering.v1.types_pb2 import OrderHistory, OrderHistoryEntry, OrderLine
from google.protobuf.message import Message

from contracts.envelope import RecordedEvent
from operations.verify.events import describe_all
from operations.verify.model import Event
from projector.history import create_entry, entry_factory

AT = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
HELD = OrderHeld(order_id="o-1", reason="looks odd")
METADATA = {
    "actor": "ada",
    "on_behalf_of": "bob",
    "command": "diptych.ordering.v1.HoldOrder",
    "correlation_id": "c-1",
    "causation_id": "r-1",
    "traceparent": "00-1-1-00",
}
NONE = OrderHistory()


def record(**metadata: str) -> RecordedEvent:
    name, data = HELD.DESCRIPTOR.full_name, HELD.SerializeToString()
    return RecordedEvent("ordering.order.o-1", 3, name, data, AT, 9, metadata)


def test_an_entry_names_the_event_its_command_and_its_actor() -> None:
    entry = create_entry(NONE, record(**METADATA))
    assert (entry.version, entry.record_time.ToDatetime(UTC)) == (3, AT)
    assert (entry.actor, entry.on_behalf_of) == ("ada", "bob")
    assert (entry.command, entry.request_id) == ("diptych.ordering.v1.HoldOrder", "r-1")
    assert (entry.correlation_id, entry.event_type) == ("c-1", "diptych.ordering.v1.OrderHeld")
    held = OrderHeld()
    assert entry.event.Unpack(held)
    assert held == HELD


@pytest.mark.parametrize("metadata", [METADATA, {}], ids=["full", "empty"])
def test_verify_expects_the_same_entry(metadata: dict[str, str]) -> None:
    event = record(**metadata)
    assert describe_all([Event(event, HELD)]) == [create_entry(NONE, event)]


def test_entries_of_orders_have_the_bytes_of_an_entry() -> None:
    event = record(**METADATA)
    order_entry = entry_factory(OrderHistoryEntry)(NONE, event)
    assert order_entry.SerializeToString() == create_entry(NONE, event).SerializeToString()


def test_a_message_gets_the_fields_that_it_shares_with_an_entry() -> None:
    movement = entry_factory(StockMovement)(NONE, record(**METADATA))
    expected = StockMovement(version=3, actor="ada")
    expected.record_time.FromDatetime(AT)
    assert movement == expected
    transaction = entry_factory(Transaction, record_time="book_time")(NONE, record(**METADATA))
    assert transaction.book_time == expected.record_time


@pytest.mark.parametrize(
    ("message", "record_time", "problem"),
    [
        (Transaction, "record_time", "Transaction.record_time must have the type"),
        (Transaction, "reference", "Transaction.reference must have the type"),
        (OrderLine, "quantity", "OrderLine.version must have the type"),
    ],
)
def test_a_message_without_version_or_time_is_refused(
    message: type[Message], record_time: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        entry_factory(message, record_time=record_time)
