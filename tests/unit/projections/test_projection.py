"""Projections, and the fold of records by them."""

from datetime import UTC, datetime

import pytest
from diptych.ordering.v1 import events_pb2 as events
from diptych.ordering.v1 import types_pb2 as views
from google.protobuf.message import Message

from contracts.envelope import RecordedEvent
from contracts.event_types import UnknownEvent
from contracts.events.ordering import EVENTS
from contracts.view_layout import View
from projector.fold import EventsMissing, fold
from projector.projection import Entry, Projection
from projector.projections.ordering.order import ORDERS
from projector.records import Record

VIEW = View.of(views.Order)
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def recorded(version: int, event: Message, type_: str = "") -> RecordedEvent:
    name = type_ or event.DESCRIPTOR.full_name
    return RecordedEvent("ordering.order.o-1", version, name, event.SerializeToString(), AT, version, {})


def placed() -> events.OrderPlaced:
    event = events.OrderPlaced(order_id="o-1", customer_id="c-1", account_id="a-1", warehouse_id="w-1")
    event.lines.add(sku="s", title="Thing", quantity=2).unit_price.units = 3
    event.total.currency_code, event.total.units, event.total.nanos = "EUR", 12, 340_000_000
    event.personal.subject_id = "c-1"
    event.personal.shipping_address.locality = "Ghent"
    event.placed_at.FromDatetime(AT)
    return event


def confirmed() -> events.OrderConfirmed:
    event = events.OrderConfirmed(order_id="o-1")
    event.confirmed_at.FromDatetime(AT)
    return event


def cancelled(reason: str = "why not") -> events.OrderCancelled:
    event = events.OrderCancelled(order_id="o-1", reason=reason)
    event.cancelled_at.FromDatetime(AT)
    return event


def view_of(*messages: Message) -> views.Order:
    run = [recorded(version, event) for version, event in enumerate(messages, 1)]
    rendered, done, error = ORDERS.fold(views.Order(), run)
    assert (done, error) == (len(messages), None)
    assert rendered is not None
    return rendered.message


class TestAProjection:
    def test_lets_handlers_change_a_private_copy(self) -> None:
        before = views.Order(order_id="o-1")
        ORDERS.fold(before, [recorded(1, placed())])
        assert before == views.Order(order_id="o-1")

    def test_advances_over_events_that_have_no_handler(self) -> None:
        idle = Projection[views.Order](VIEW, events=EVENTS)
        rendered, done, error = idle.fold(views.Order(order_id="o-1"), [recorded(7, confirmed())])
        assert rendered is not None
        assert (rendered.message, done, error) == (views.Order(order_id="o-1", version=7), 1, None)

    def test_cannot_apply_an_event_that_it_was_not_built_with(self) -> None:
        newer = recorded(2, confirmed(), "diptych.ordering.v1.OrderMislaid")
        rendered, done, error = ORDERS.fold(views.Order(), [recorded(1, placed()), newer])
        assert rendered is not None
        assert (rendered.message, done) == (view_of(placed()), 1)
        assert isinstance(error, UnknownEvent)

    def test_keeps_the_events_before_one_that_fails(self) -> None:
        bad = RecordedEvent("ordering.order.o-1", 2, "diptych.ordering.v1.OrderConfirmed", b"\xff", AT, 2, {})
        rendered, done, error = ORDERS.fold(
            views.Order(), [recorded(1, placed()), bad, recorded(3, cancelled())]
        )
        assert rendered is not None
        assert (rendered.message, done) == (view_of(placed()), 1)
        assert error is not None

    def test_keeps_no_change_of_a_handler_that_fails_halfway(self) -> None:
        fragile = Projection[views.Order](VIEW, events=EVENTS)

        @fragile.on(events.OrderCancelled)
        def fails(order: views.Order, event: events.OrderCancelled) -> None:
            order.cancel_reason = event.reason
            raise RuntimeError("halfway")

        first = [recorded(1, placed()), recorded(2, cancelled())]
        rendered, done, error = fragile.fold(views.Order(), first)
        assert rendered is not None
        assert (rendered.message, done, str(error)) == (views.Order(version=1), 1, "halfway")

    def test_blames_an_event_after_which_the_view_cannot_be_rendered(self) -> None:
        def entries(order: views.Order) -> list[Entry]:
            if order.state == views.Order.STATE_CANCELLED:
                raise ValueError("no index")
            return []

        unindexed = Projection[views.Order](VIEW, events=EVENTS, indexes=entries)

        @unindexed.on(events.OrderCancelled)
        def cancel(order: views.Order, event: events.OrderCancelled) -> None:
            order.state = views.Order.STATE_CANCELLED

        run = [recorded(1, placed()), recorded(2, cancelled()), recorded(3, confirmed())]
        rendered, done, error = unindexed.fold(views.Order(), run)
        assert rendered is not None
        assert (rendered.message.version, done, str(error)) == (1, 1, "no index")

    def test_returns_no_view_when_the_first_event_fails(self) -> None:
        newer = recorded(1, confirmed(), "diptych.ordering.v1.OrderMislaid")
        rendered, done, error = ORDERS.fold(views.Order(), [newer])
        assert (rendered, done) == (None, 0)
        assert isinstance(error, UnknownEvent)

    def test_refuses_two_handlers_of_one_event(self) -> None:
        with pytest.raises(ValueError, match=r"has a handler of .*OrderHeld"):
            ORDERS.on(events.OrderHeld)

    def test_refuses_a_handler_of_an_older_version_and_names_the_newest(self) -> None:
        with pytest.raises(ValueError, match=r"its newest version, diptych\.ordering\.v2\.OrderPlaced"):
            ORDERS.on(events.OrderPlaced)

    def test_refuses_a_handler_of_a_message_that_is_not_an_event(self) -> None:
        with pytest.raises(ValueError, match="OrderLine"):
            ORDERS.on(views.OrderLine)

    @pytest.mark.parametrize("column", ["version", "parked", "no_such_field", "lines", "shipping_address"])
    def test_refuses_columns_that_are_unreadable_or_reserved(self, column: str) -> None:
        with pytest.raises(ValueError, match="column"):
            Projection[views.Order](VIEW, events=EVENTS, columns=(column,))


def blank() -> Record:
    return Record("o-1", views.Order())


class TestFold:
    def test_takes_events_in_the_order_of_their_versions_each_once(self) -> None:
        first, second, third = (recorded(n, e) for n, e in enumerate((placed(), confirmed(), cancelled()), 1))
        result = fold(ORDERS, blank(), [third, first, second, first])
        assert result.applied_events == [first, second, third]
        assert (result.record.version, result.record.revision, result.error) == (3, 1, None)

    def test_ignores_events_that_were_applied_before(self) -> None:
        record = fold(ORDERS, blank(), [recorded(1, placed()), recorded(2, confirmed())]).record
        repeated = fold(ORDERS, record, [recorded(1, placed()), recorded(2, confirmed())])
        assert repeated.record is record
        assert (repeated.content, repeated.applied_events, repeated.error) == (None, [], None)

    def test_stops_at_a_gap(self) -> None:
        result = fold(ORDERS, blank(), [recorded(1, placed()), recorded(3, cancelled())])
        assert result.record.version == 1
        assert isinstance(result.error, EventsMissing)
        assert str(result.error) == "event 2 is missing before event 3"
