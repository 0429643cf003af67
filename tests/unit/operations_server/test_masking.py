"""Personal fields are masked by their option, however deep they are, and other fields are shown."""

import json
from datetime import UTC, datetime

import pytest
from diptych.banking.v1 import events_pb2 as banking
from diptych.operations.v1.records_pb2 import Event
from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v2 import events_pb2 as v2
from google.protobuf.message import Message

from contracts.personal_fields import MASK
from operations.rendering.values import to_fields
from operations_server.records.content import Content
from operations_server.records.event_messages import build_event


def show(message: Message, content: Content, data: bytes | None = None) -> Event:
    row = {
        "stream": "ordering.order.o-1",
        "version": 1,
        "position": 7,
        "type": message.DESCRIPTOR.full_name,
        "recorded_at": datetime(2026, 1, 1, tzinfo=UTC),
        "metadata": json.dumps({}),
    }
    return build_event(row, message.SerializeToString() if data is None else data, content)


def make_order() -> v2.OrderPlaced:
    order = v2.OrderPlaced(order_id="o-1", customer_id="c-1")
    for number in range(2):
        group = order.groups.add(shipping_group_id=f"g-{number}")
        group.personal.subject_id = "c-1"
        group.personal.shipping_address.recipient = "Ada"
    return order


def test_personal_fields_are_replaced_in_all_groups_of_an_order() -> None:
    event = show(make_order(), Content.MASKED)
    assert "Ada" not in str(event)
    fields = to_fields(event.data)
    assert fields["customer_id"] == "c-1"
    assert [group["personal"] for group in fields["groups"]] == 2 * [
        {"subject_id": "c-1", "shipping_address": MASK}
    ]


@pytest.mark.parametrize(
    "message",
    [banking.MoneyDeposited(reference="Ada"), v1.OrderCancelled(reason="Ada")],
)
def test_texts_of_customers_are_replaced(message: Message) -> None:
    assert list(to_fields(show(message, Content.MASKED).data).values()) == [MASK]
    assert list(to_fields(show(message, Content.FULL).data).values()) == ["Ada"]


def test_all_or_nothing_is_shown() -> None:
    assert "Ada" in str(show(make_order(), Content.FULL))
    nothing = show(make_order(), Content.NONE)
    assert (nothing.HasField("data"), nothing.type) == (False, "diptych.ordering.v2.OrderPlaced")


def test_bytes_that_cannot_be_decoded_are_shown_in_full_alone() -> None:
    shown = {content: show(make_order(), content, b"\xffAda").encoded_data for content in Content}
    assert shown == {Content.FULL: b"\xffAda", Content.MASKED: b"", Content.NONE: b""}
