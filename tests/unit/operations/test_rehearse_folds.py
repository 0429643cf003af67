"""Views that are folded in slices, and at versions behind the last event."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import pytest
from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v1.types_pb2 import Order
from diptych.ordering.v2.events_pb2 import OrderPlaced

from contracts.envelope import RecordedEvent
from operations.rehearse.report import Report
from operations.rehearse.stored_views import StoredView
from operations.rehearse.view_fold import ViewFold
from projector.projections.ordering.order import ORDERS
from projector.projections.ordering.order_history import HISTORIES

STREAM = "ordering.order.o-1"
MESSAGES = (
    OrderPlaced(order_id="o-1", customer_id="c-1"),
    v1.OrderHeld(order_id="o-1", reason="odd"),
    v1.OrderApproved(order_id="o-1"),
    v1.OrderConfirmed(order_id="o-1"),
)
EVENTS = [
    RecordedEvent(
        STREAM,
        version,
        message.DESCRIPTOR.full_name,
        message.SerializeToString(),
        datetime(2026, 1, 1, tzinfo=UTC),
        version,
        {},
    )
    for version, message in enumerate(MESSAGES, 1)
]


def store(version: int) -> StoredView:
    """Return the view as a projector stores it."""
    rendered, *_ = ORDERS.fold(Order(), EVENTS[:version])
    assert rendered is not None
    entries, contributions = map(msgspec.json.encode, (rendered.entries, rendered.contributions))
    return StoredView(version, rendered.data, entries, contributions)


def fold(stored: StoredView, slices: Sequence[Sequence[RecordedEvent]]) -> Report:
    report = Report()
    view = ViewFold(ORDERS, STREAM, stored, report)
    for events in slices:
        view.apply(events)
    return report


@pytest.mark.parametrize("version", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_view_is_compared_once_at_its_version(version: int, size: int) -> None:
    slices = [EVENTS[start : start + size] for start in range(0, 4, size)]
    report = fold(store(version), slices)
    assert (report.counts["views"], report.differences) == (1, {})
    changed = msgspec.structs.replace(store(version), data=Order(order_id="o-2").SerializeToString())
    assert ("views", "ordering.order.order_id") in fold(changed, slices).differences


def test_entries_of_another_generation_are_the_same() -> None:
    stored = store(2)
    assert stored.entries is not None
    moved = msgspec.structs.replace(stored, entries=stored.entries.replace(b":2:{", b":2.7:{"))
    assert moved != stored
    assert not fold(moved, [EVENTS]).differences


@pytest.mark.parametrize("field", ["entries", "contributions"])
def test_a_lost_and_a_doubled_row_are_differences(field: str) -> None:
    rows = msgspec.json.decode(getattr(store(2), field))
    for changed in (rows[1:], [*rows, rows[0]], None):
        stored = msgspec.structs.replace(store(2), **{field: msgspec.json.encode(changed)})
        assert {kind for kind, _ in fold(stored, [EVENTS]).differences} == {field}


def test_an_event_that_cannot_be_applied_is_a_difference_unless_it_is_parked() -> None:
    unknown = msgspec.structs.replace(EVENTS[2], type="diptych.ordering.v9.New")
    events = [*EVENTS[:2], unknown, EVENTS[3]]
    report = fold(store(2), [events])
    assert report.differences == {("events", "ordering.order.UnknownEvent"): 1}
    assert report.counts["views"] == 1
    parked = msgspec.structs.replace(store(2), parked_version=3)
    report = fold(parked, [events])
    assert not report.differences
    assert report.notes


def test_history_entries_are_compared_up_to_the_views_version() -> None:
    report = Report()
    view = ViewFold(HISTORIES, STREAM, StoredView(3, b""), report)
    view.apply(EVENTS)
    entries = dict(view.history)
    assert list(entries) == [1, 2, 3]
    report.differences.clear()
    del entries[1]  # housekeeping has removed it
    entries[3] += entries[2]
    view.compare_history(entries, first=2)
    assert report.differences == {("history", "ordering.order_history.history"): 1}
    assert report.counts["history"] == 2


def test_skipped_events_are_not_applied() -> None:
    unknown = msgspec.structs.replace(EVENTS[2], type="diptych.ordering.v9.New")
    events = [*EVENTS[:2], unknown, EVENTS[3]]
    rendered, *_ = ORDERS.fold(Order(), events, skipped=frozenset({3}))
    assert rendered is not None
    entries, contributions = map(msgspec.json.encode, (rendered.entries, rendered.contributions))
    report = Report()
    stored = StoredView(4, rendered.data, entries, contributions)
    ViewFold(ORDERS, STREAM, stored, report, skipped=frozenset({3})).apply(events)
    assert (report.counts["views"], report.differences) == (1, {})
