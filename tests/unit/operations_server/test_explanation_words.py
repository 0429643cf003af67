"""The words of explanations: what of an event is shown, how long a chain may be, and what a subject names."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from diptych.operations.v1.explanation_pb2 import Explanation
from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v2 import events_pb2 as v2
from diptych.privacy.v1 import privacy_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.type.money_pb2 import Money

from operations_server.explanations.chain import FIRST_ENTRIES, MAX_ENTRIES, Chain, Entry
from operations_server.explanations.subjects import Subject, parse_subject
from operations_server.explanations.words import (
    cut,
    describe_event,
    describe_rejection,
    name_event,
    name_sender,
    name_stream,
)
from runtime.codec import message_class
from tests.support.builders.recorded_events import fill_fields, list_event_names
from tests.support.harness.contexts import CONTEXTS

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EVENTS = sorted({name for context in CONTEXTS for name in list_event_names(context)})


def describe(message: Message) -> str:
    return describe_event(message, aggregate_id="o-1", recorded_at=NOW)


@pytest.mark.parametrize("name", EVENTS)
def test_texts_of_events_are_never_shown(name: str) -> None:
    message: Any = fill_fields(message_class(Default().FindMessageTypeByName(name))())
    text = describe(message)
    assert text
    for field, value in message.ListFields():
        assert field.name in text or "more" in text
        if isinstance(value, str) and not field.name.endswith(("id", "sku", "currency_code")):
            assert f"{field.name} {value}" not in text


def test_a_field_that_is_marked_as_personal_is_not_shown_whatever_its_type() -> None:
    file = FileDescriptorProto(name="t/personal.proto", package="t", syntax="proto3")
    message = file.message_type.add(name="BirthRecorded")
    for number, name in enumerate(("born_year", "size"), 1):
        message.field.add(name=name, number=number, type="TYPE_INT32", label="LABEL_OPTIONAL")
    message.field[0].options.Extensions[privacy_pb2.personal] = True
    Default().AddSerializedFile(file.SerializeToString())
    kind: Any = message_class(Default().FindMessageTypeByName("t.BirthRecorded"))
    assert describe(kind(born_year=1815, size=7)) == "size 7; also born_year"


def test_ids_money_and_times_are_shown_and_what_is_known_is_not_repeated() -> None:
    placed = v2.OrderPlaced(order_id="o-1", customer_id="c-1", total=Money(currency_code="EUR", units=3))
    placed.placed_at.FromDatetime(NOW)
    placed.groups.add().personal.subject_id = "c-1"
    assert describe(placed) == "customer_id c-1, total 3.00 EUR; also groups (1)"
    assert describe(v1.OrderCancelled(order_id="o-1", reason="my wife has left me")) == "reason"
    assert describe(v1.OrderConfirmed(order_id="o-1")) == ""
    debt = Money(currency_code="EUR", units=-1, nanos=-50_000_000)
    assert describe(v2.OrderPlaced(total=debt)) == "total -1.05 EUR"
    beyond = v1.OrderConfirmed()
    beyond.confirmed_at.seconds = 2**60
    assert describe(beyond) == f"confirmed_at {2**60} s since 1970"


def test_names_are_words() -> None:
    assert name_event("diptych.ordering.v1.OrderLineAdded") == "order line added"
    assert name_event("OTPSent") == "otp sent"
    assert name_stream("ordering.customer_activity.c-1") == "customer activity c-1"
    assert name_sender("alice", "carol") == "alice on behalf of carol"
    assert name_sender("", None) == "somebody unknown"
    assert describe_rejection("NO", {}) == "NO"
    assert describe_rejection("LIMIT", {"daily_limit": "5", "asked": 7}) == "LIMIT (daily limit 5, asked 7)"
    assert cut("x" * 2_000) == "x" * 999 + "…"


def test_a_chain_is_in_order_without_its_middle_and_each_entry_is_one_line() -> None:
    chain = Chain()
    for number in reversed(range(MAX_ENTRIES + 10)):
        entry = Entry(NOW + timedelta(seconds=number), Explanation.KIND_EVENT, f"{number}\nforged \ud800")
        chain.add(number, entry)
        chain.add(number, entry)
    message = chain.to_message("s", "summary")
    numbers = [int(entry.text.partition("\\n")[0]) for entry in message.entries]
    assert numbers == [*range(FIRST_ENTRIES), *range(FIRST_ENTRIES + 10, MAX_ENTRIES + 10)]
    assert message.omitted_entry_count == 10
    assert all(entry.text.isprintable() for entry in message.entries)


def test_a_chain_as_of_a_time_has_nothing_later() -> None:
    chain = Chain(NOW)
    for seconds in (-1, 0, 1):
        chain.add(seconds, Entry(NOW + timedelta(seconds=seconds), Explanation.KIND_EVENT, str(seconds)))
    assert [entry.text for entry in chain.list_entries()] == ["-1", "0"]


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("o-1", Subject(("a.b.o-1", "c.d.o-1"))),
        ("a.b.o-1", Subject(("a.b.o-1",))),
        ("x.y.z@12", Subject(event=("x.y.z", 12))),
        ("x.y.z@0", Subject()),
        ("x.y.z@1e3", Subject()),
        ("", Subject()),
        ("a b", Subject()),
        ("x" * 65, Subject()),
        ("ä", Subject()),
    ],
)
def test_a_text_names_aggregates_an_event_or_nothing(text: str, subject: Subject) -> None:
    assert parse_subject(text, ["a.b", "c.d"]) == subject


def test_an_id_may_be_that_of_a_request_in_capitals() -> None:
    text = "0B5286FB-8484-4F13-97AF-0918FC279151"
    subject = parse_subject(text, ["a.b"])
    assert (subject.streams, subject.request_id) == ((f"a.b.{text}",), text.lower())
