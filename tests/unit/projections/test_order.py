"""The view of an order: its event handlers, and the data derived from it."""

from datetime import UTC, datetime

import pytest
from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v1 import types_pb2 as views
from diptych.ordering.v2 import events_pb2 as v2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from contracts.envelope import RecordedEvent
from contracts.events.ordering import EVENTS
from projector.projection import RenderedView
from projector.projections.ordering.order import ORDERS
from tests.support.builders.recorded_events import fill_fields

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
T = Timestamp(seconds=int(AT.timestamp()))
LATER = Timestamp(seconds=T.seconds + 60)


def recorded(version: int, event: Message) -> RecordedEvent:
    name = event.DESCRIPTOR.full_name
    return RecordedEvent("ordering.order.o-1", version, name, event.SerializeToString(), AT, version, {})


def euros(units: int, nanos: int = 0) -> Money:
    return Money(currency_code="EUR", units=units, nanos=nanos)


TOTAL = euros(12, 340_000_000)


def line(sku: str, units: int = 3) -> views.OrderLine:
    return views.OrderLine(sku=sku, title=sku.upper(), quantity=2, unit_price=euros(units))


def town(name: str) -> views.ShippingAddress:
    return views.ShippingAddress(recipient="Ada", locality=name)


def group(group_id: str, *skus: str, locality: str = "Ghent") -> views.ShippingGroup:
    return views.ShippingGroup(
        shipping_group_id=group_id,
        lines=[line(sku) for sku in skus],
        shipping_address=town(locality),
        warehouse_id=f"w-{group_id}",
    )


def placed(*groups: views.ShippingGroup, total: Money = TOTAL) -> v2.OrderPlaced:
    return v2.OrderPlaced(
        order_id="o-1",
        customer_id="c-1",
        groups=[
            v2.PlacedGroup(
                shipping_group_id=each.shipping_group_id,
                lines=each.lines,
                warehouse_id=each.warehouse_id,
                personal=v1.PersonalData(subject_id="c-1", shipping_address=each.shipping_address),
            )
            for each in groups or (group("main", "s-1"),)
        ],
        total=total,
        account_id="a-1",
        placed_at=T,
    )


def rendered(*messages: Message) -> RenderedView[views.Order]:
    run = [recorded(version, event) for version, event in enumerate(messages, 1)]
    view, done, error = ORDERS.fold(views.Order(), run)
    assert (done, error) == (len(messages), None)
    assert view is not None
    return view


def view_of(*messages: Message) -> views.Order:
    return rendered(*messages).message


HELD = v1.OrderHeld(order_id="o-1", reason="odd", held_at=T)
APPROVED = v1.OrderApproved(order_id="o-1", approved_at=LATER)
CONFIRMED = v1.OrderConfirmed(order_id="o-1", confirmed_at=T)
REJECTED = v1.OrderRejected(order_id="o-1", reason="sold out", rejected_at=T)
CANCELLED = v1.OrderCancelled(order_id="o-1", reason="too late", cancelled_at=T)
SHIPPED = v1.OrderShipped(order_id="o-1", carrier="Hermes", tracking_code="H-7", shipped_at=T)
DELIVERED = v1.OrderDelivered(order_id="o-1", delivered_at=T)
RETURNED = v1.OrderReturned(order_id="o-1", reason="broken", returned_at=T)


class TestOrderView:
    def test_of_a_confirmed_order_stays_confirmed_when_it_is_approved(self) -> None:
        assert view_of(placed(group("a", "s-1")), CONFIRMED, APPROVED).state == views.Order.STATE_CONFIRMED

    def test_has_all_data_of_the_customer_once_it_is_placed(self) -> None:
        two, one = group("two", "s-2", "s-3"), group("one", "s-1", locality="Bruges")
        assert view_of(placed(two, one)) == views.Order(
            order_id="o-1",
            version=1,
            state=views.Order.STATE_PLACED,
            customer_id="c-1",
            total=euros(12, 340_000_000),
            account_id="a-1",
            place_time=T,
            shipping_groups=[two, one],
        )

    def test_of_version_1_has_one_shipping_group_and_equals_version_2(self) -> None:
        old = v1.OrderPlaced(
            order_id="o-1",
            customer_id="c-1",
            lines=[line("s-1")],
            total=euros(12, 340_000_000),
            personal=v1.PersonalData(subject_id="c-1", shipping_address=town("Ghent")),
            account_id="a-1",
            warehouse_id="w-main",
            placed_at=T,
        )
        assert view_of(old) == view_of(placed(group("main", "s-1")))

    def test_of_version_1_is_read_from_recorded_bytes(self) -> None:
        recorded_bytes = bytes.fromhex(  # an event of version 1
            "0a036f2d311203632d311a170a03732d3112055468696e67180222070a034555521006220d0a03455552100c1880fa8fa201"
            "2a0912070a05416c6963653203612d313a03772d31420608b5e9dcca06"
        )
        name = "diptych.ordering.v1.OrderPlaced"
        view, _, error = ORDERS.fold(
            views.Order(), [RecordedEvent("ordering.order.o-1", 1, name, recorded_bytes, AT, 1, {})]
        )
        assert error is None
        assert view is not None
        (group_,) = view.message.shipping_groups
        assert (group_.shipping_group_id, group_.warehouse_id) == ("main", "w-1")
        assert [each.sku for each in group_.lines] == ["s-1"]
        assert group_.shipping_address.recipient == "Alice"
        assert (view.message.total, view.message.place_time) == (TOTAL, Timestamp(seconds=T.seconds - 240))

    def test_has_an_added_line_at_the_end_of_its_group(self) -> None:
        added = v1.OrderLineAdded(
            order_id="o-1", shipping_group_id="a", line=line("s-9"), total=euros(18), added_at=LATER
        )
        order = view_of(placed(group("a", "s-1"), group("b", "s-2")), added)
        assert list(order.shipping_groups) == [group("a", "s-1", "s-9"), group("b", "s-2")]
        assert (order.total, order.version) == (euros(18), 2)

    def test_loses_a_removed_line_from_its_group_only(self) -> None:
        removed = v1.OrderLineRemoved(
            order_id="o-1", shipping_group_id="b", sku="s-1", total=euros(6), removed_at=LATER
        )
        order = view_of(placed(group("a", "s-1", "s-2"), group("b", "s-1", "s-3")), removed)
        assert list(order.shipping_groups) == [group("a", "s-1", "s-2"), group("b", "s-3")]
        assert order.total == euros(6)

    @pytest.mark.parametrize("group_id", ["a", "b"])
    def test_has_the_changed_address_in_its_group_only(self, group_id: str) -> None:
        personal = v1.PersonalData(subject_id="c-1", shipping_address=town("Aalst"))
        changed = v1.ShippingAddressChanged(
            order_id="o-1", shipping_group_id=group_id, personal=personal, changed_at=T
        )
        order = view_of(placed(group("a", "s-1"), group("b", "s-2")), changed)
        assert {each.shipping_group_id: each.shipping_address.locality for each in order.shipping_groups} == {
            "a": "Ghent",
            "b": "Ghent",
            group_id: "Aalst",
        }

    def test_is_held_for_a_reason(self) -> None:
        order = view_of(placed(), HELD)
        assert (order.state, order.hold_time, order.hold_reason) == (views.Order.STATE_HELD, T, "odd")

    def test_is_placed_again_once_approved_and_keeps_the_last_hold(self) -> None:
        second_hold = v1.OrderHeld(order_id="o-1", reason="odd again", held_at=LATER)
        order = view_of(placed(), HELD, APPROVED)
        assert (order.state, order.hold_time, order.hold_reason) == (views.Order.STATE_PLACED, T, "odd")
        order = view_of(placed(), HELD, APPROVED, second_hold)
        assert (order.state, order.hold_time) == (views.Order.STATE_HELD, LATER)
        assert order.hold_reason == "odd again"

    def test_is_confirmed(self) -> None:
        order = view_of(placed(), CONFIRMED)
        assert (order.state, order.confirm_time) == (views.Order.STATE_CONFIRMED, T)

    def test_is_rejected_for_a_reason(self) -> None:
        order = view_of(placed(), HELD, REJECTED)
        assert (order.state, order.reject_time) == (views.Order.STATE_REJECTED, T)
        assert order.reject_reason == "sold out"

    def test_is_cancelled_for_a_reason(self) -> None:
        order = view_of(placed(), CANCELLED)
        assert (order.state, order.cancel_time) == (views.Order.STATE_CANCELLED, T)
        assert order.cancel_reason == "too late"

    def test_is_shipped_delivered_and_returned(self) -> None:
        order = view_of(placed(), CONFIRMED, SHIPPED)
        assert (order.state, order.ship_time) == (views.Order.STATE_SHIPPED, T)
        assert (order.carrier, order.tracking_code) == ("Hermes", "H-7")
        order = view_of(placed(), CONFIRMED, SHIPPED, DELIVERED)
        assert (order.state, order.deliver_time) == (views.Order.STATE_DELIVERED, T)
        order = view_of(placed(), CONFIRMED, SHIPPED, DELIVERED, RETURNED)
        assert (order.state, order.return_time) == (views.Order.STATE_RETURNED, T)
        assert (order.return_reason, order.version) == ("broken", 5)

    def test_has_every_field_set_by_some_event(self) -> None:
        edits = (v1.OrderLineAdded, v1.OrderLineRemoved, v1.ShippingAddressChanged)
        everything = [fill_fields(event()) for event in ORDERS.handlers if event not in edits]
        order = view_of(*everything)
        fields = {field.name for field in views.Order.DESCRIPTOR.fields if not field.GetOptions().deprecated}
        assert {field.name for field, _ in order.ListFields()} == fields - {
            "forget_time"
        }  # the kernel's event

    def test_has_a_handler_for_every_event(self) -> None:
        newest = {EVENTS.newest(name) for name in EVENTS.names}
        of_orders = {event for event in newest if "order_id" in event.DESCRIPTOR.fields_by_name}
        assert set(ORDERS.handlers) == of_orders - {v1.OrderAssessed}  # of the customer's activity

    @pytest.mark.parametrize(
        "impossible",
        [
            v1.OrderLineAdded(order_id="o-1", shipping_group_id="other", line=line("s-9")),
            v1.OrderLineRemoved(order_id="o-1", shipping_group_id="main", sku="s-9"),
            v1.ShippingAddressChanged(order_id="o-1", shipping_group_id="other"),
        ],
        ids=lambda event: event.DESCRIPTOR.name,
    )
    def test_cannot_apply_an_event_of_a_group_or_line_that_it_lacks(self, impossible: Message) -> None:
        view, done, error = ORDERS.fold(views.Order(), [recorded(1, placed()), recorded(2, impossible)])
        assert view is not None
        assert (view.message, done) == (view_of(placed()), 1)
        assert error is not None


class TestDerivedData:
    def test_is_indexed_by_customer_by_state_by_both_and_among_all(self) -> None:
        member = f"{1767323045_000_000:016x}:o-1"
        assert set(rendered(placed()).entries) >= {
            ("index:ordering.order:2:{customer/c-1}", member),
            ("index:ordering.order:2:{state/STATE_PLACED}", member),
            ("index:ordering.order:2:{customer_state/c-1/STATE_PLACED}", member),
            ("index:ordering.order:2:{all}", member),
        }

    def test_is_counted_and_its_total_summed_by_state_and_currency(self) -> None:
        total = "counters:ordering.order:2:{customer/c-1}"
        assert rendered(placed(), HELD).contributions == (
            (total, "orders/STATE_HELD", "1"),
            (total, "units/STATE_HELD/EUR", "12"),
            (total, "nanos/STATE_HELD/EUR", "340000000"),
        )

    def test_contributes_nothing_to_a_counter_for_zero(self) -> None:
        contributions = rendered(placed(total=euros(12))).contributions or ()
        assert [counter for _, counter, _ in contributions] == [
            "orders/STATE_PLACED",
            "units/STATE_PLACED/EUR",
        ]
        contributions = rendered(placed(total=euros(0))).contributions or ()
        assert [counter for _, counter, _ in contributions] == ["orders/STATE_PLACED"]

    @pytest.mark.parametrize("units", [10**15 + 1, 2**63 - 1, -(2**63)])
    def test_cannot_have_a_total_that_could_fill_a_counter(self, units: int) -> None:
        view, done, error = ORDERS.fold(views.Order(), [recorded(1, placed(total=euros(units)))])
        assert (view, done) == (None, 0)
        assert f"is beyond {10**15}" in str(error)

    def test_is_in_its_customers_change_feed(self) -> None:
        assert rendered(placed()).change_feeds == ("change_feed:ordering.order:2:{customer/c-1}",)

    def test_has_readable_columns(self) -> None:
        assert dict(rendered(placed()).columns) == {
            "state": "STATE_PLACED",
            "customer_id": "c-1",
            "total": "12.34 EUR",
            "place_time": "2026-01-02T03:04:05+00:00",
        }
