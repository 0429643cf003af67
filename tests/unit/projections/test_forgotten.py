"""The event that says that a person was forgotten: views note its time, all else passes over it."""

from datetime import UTC, datetime
from typing import Any

from diptych.ordering.v1.types_pb2 import Order
from diptych.privacy.v1.privacy_pb2 import SubjectForgotten

from contracts.envelope import RecordedEvent
from contracts.forgetting import FORGOTTEN
from process_manager.groups.instance import Instance
from projector.projection import Projection
from projector.projections.inventory.stock import STOCKS
from projector.projections.ordering.order import ORDERS
from projector.projections.ordering.order_history import HISTORIES
from tests.support.ledger.sagas import COLLECTION

T = datetime(2026, 1, 2, tzinfo=UTC)
FORGET = SubjectForgotten(subject_id="ada", key_id=b"k")
FORGET.forgotten_at.FromDatetime(T)


def make_event(stream: str = "ordering.order.o-1", version: int = 1) -> RecordedEvent:
    return RecordedEvent(stream, version, FORGOTTEN, FORGET.SerializeToString(), T, version, {})


def test_a_view_with_the_field_notes_the_time() -> None:
    rendered, count, error = ORDERS.fold(Order(), [make_event()])
    assert (count, error) == (1, None)
    assert rendered is not None
    assert (rendered.message.forget_time, rendered.message.version) == (FORGET.forgotten_at, 1)


def test_a_view_without_the_field_and_a_history_advance() -> None:
    projections: tuple[Projection[Any], ...] = (STOCKS, HISTORIES)
    for projection in projections:
        rendered, count, error = projection.fold(projection.view.message(), [make_event()])
        assert (count, error) == (1, None)
        assert rendered is not None
        assert rendered.history_entries == ()


def test_a_saga_steps_over_it() -> None:
    instance = Instance(COLLECTION, "c", COLLECTION.initial)
    assert instance.receive_event(make_event("ledger.cheque.c"), T)
    assert (instance.version, instance.state, instance.steps) == (1, COLLECTION.initial, [])
