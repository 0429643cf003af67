"""Personal data in events: sealed with the key of its subject, opened with it, and empty without it."""

from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from diptych.customers.v1 import events_pb2 as customers
from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v2 import events_pb2 as v2
from diptych.privacy.v1 import privacy_pb2
from google.protobuf.descriptor import Descriptor

from command_server.kernel.ports import StoredEvent
from contracts.personal_data import (
    SEALED,
    Sealed,
    SubjectKey,
    list_key_ids,
    list_subject_messages,
    may_be_sealed,
    open_data,
    remove_sealed,
    seal,
)
from contracts.personal_fields import is_personal
from tests.support.builders.personal_events import NAME
from tests.support.harness.contexts import CONTEXTS

ADA, BOB = (SubjectKey(name * 16, AESGCM(name * 32)) for name in (b"a", b"b"))
KEYS = {ADA.id: ADA, BOB.id: BOB}
STREAM = "ordering.order.o-1"

WITHOUT_SUBJECT = {
    "diptych.banking.v1.ListedNameAdded.name": "a listed person has no id; compliance keeps the name",
}
"""The personal fields that are not sealed, and why."""


def find_key(subject: str) -> SubjectKey:
    return {"ada": ADA, "bob": BOB}[subject]


def place(*subjects: str) -> v2.OrderPlaced:
    """Return an order with a group for each subject, whose address has a name."""
    event = v2.OrderPlaced(order_id="o-1", customer_id="ada")
    for number, subject in enumerate(subjects):
        group = event.groups.add(shipping_group_id=f"g-{number}", warehouse_id="w-1")
        group.personal.subject_id = subject
        group.personal.shipping_address.recipient = f"{NAME} {number}"
    return event


def record(event: Any, stream: str = STREAM) -> StoredEvent:
    sealed = type(event)()
    sealed.CopyFrom(event)
    seal(sealed, stream, find_key)
    return StoredEvent(event.DESCRIPTOR.full_name, sealed.SerializeToString())


def read(stored: StoredEvent, keys: dict[bytes, SubjectKey], stream: str = STREAM) -> Any:
    return v2.OrderPlaced.FromString(open_data(stored, stream, keys))


def test_sealed_data_is_of_no_use_without_its_key() -> None:
    event = place("ada", "ada")
    stored = record(event)
    assert NAME.encode() not in stored.data
    assert list_key_ids(stored) == {ADA.id}
    assert read(stored, KEYS) == event
    with pytest.raises(Sealed):
        CONTEXTS_BY_NAME["ordering"].events.decode(StoredEvent(stored.type, open_data(stored, STREAM, {})))


def test_a_destroyed_key_leaves_the_other_fields_and_the_other_subject() -> None:
    stored = record(place("ada", "bob"))
    assert list_key_ids(stored) == {ADA.id, BOB.id}
    opened = read(stored, KEYS | {ADA.id: SubjectKey(ADA.id, None)})
    expected = place("ada", "bob")
    expected.groups[0].personal.ClearField("shipping_address")
    assert opened == expected
    data = StoredEvent(stored.type, opened.SerializeToString())
    assert CONTEXTS_BY_NAME["ordering"].events.decode(data) == expected


def test_sealed_data_does_not_open_in_another_stream_or_event() -> None:
    stored = record(place("ada"))
    with pytest.raises(Exception):  # noqa: B017 - of the cipher
        open_data(stored, "ordering.order.o-2", KEYS)
    cancelled = v1.OrderCancelled(order_id="o-1", customer_id="ada", reason=NAME)
    moved = v1.OrderReturned.FromString(record(cancelled).data)
    with pytest.raises(Exception):  # noqa: B017 - of the cipher
        open_data(StoredEvent(moved.DESCRIPTOR.full_name, moved.SerializeToString()), STREAM, KEYS)


def test_own_fields_of_an_event_are_sealed_and_the_others_are_not() -> None:
    event = v1.OrderCancelled(order_id="o-1", customer_id="ada", reason=NAME)
    stored = record(event)
    readable = v1.OrderCancelled.FromString(stored.data)
    assert (readable.order_id, readable.customer_id, readable.reason) == ("o-1", "ada", "")
    assert v1.OrderCancelled.FromString(open_data(stored, STREAM, KEYS)) == event
    assert v1.OrderCancelled.FromString(remove_sealed(stored)) == v1.OrderCancelled(
        order_id="o-1", customer_id="ada"
    )


@pytest.mark.parametrize(
    "event",
    [
        v1.OrderCancelled(order_id="o-1", reason=NAME),
        v1.OrderCancelled(order_id="o-1", customer_id="ada"),
        v1.OrderConfirmed(order_id="o-1"),
    ],
    ids=["without a subject", "without personal data", "without personal fields"],
)
def test_other_events_stay_as_they_are(event: Any) -> None:
    stored = record(event)
    assert stored.data == event.SerializeToString()
    assert open_data(stored, STREAM, KEYS) is stored.data
    assert list_key_ids(stored) == set()


def test_two_seals_of_the_same_data_differ() -> None:
    assert record(place("ada")).data != record(place("ada")).data


def test_what_does_not_parse_or_is_unknown_needs_no_key() -> None:
    assert list_key_ids(StoredEvent("diptych.ordering.v2.OrderPlaced", b"\xff")) == set()
    assert list_key_ids(StoredEvent("a.b.Unknown", b"\xff")) == set()
    assert not may_be_sealed("a.b.Unknown")


def test_an_empty_message_is_sealed_and_opened_as_one() -> None:
    event = customers.AddressAdded(customer_id="ada")
    event.personal.subject_id = "ada"
    event.personal.address.SetInParent()
    stored = record(event)
    opened = customers.AddressAdded.FromString(open_data(stored, STREAM, KEYS))
    assert opened.personal.HasField("address")


CONTEXTS_BY_NAME = {context.name: context for context in CONTEXTS}
EVENTS = [
    pytest.param(descriptor, id=descriptor.full_name)
    for context in CONTEXTS
    for descriptor in context.events.descriptors
]


def list_unsealed(descriptor: Any, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the personal fields that no subject's key seals."""
    if descriptor.GetOptions().Extensions[privacy_pb2.subject]:
        return
    for field in descriptor.fields:
        if is_personal(field):
            yield field.full_name
        elif field.message_type is not None and field.message_type.full_name not in seen:
            yield from list_unsealed(field.message_type, seen | {descriptor.full_name})


def test_each_other_personal_field_has_a_subject() -> None:
    unsealed = {
        name
        for context in CONTEXTS
        for descriptor in context.events.descriptors
        for name in list_unsealed(descriptor)
    }
    assert unsealed == set(WITHOUT_SUBJECT)


@pytest.mark.parametrize("descriptor", EVENTS)
def test_a_message_with_a_subject_has_its_fields(descriptor: Descriptor) -> None:
    for message in list_subject_messages(descriptor):
        options: Any = message.GetOptions()
        subject = message.fields_by_name[options.Extensions[privacy_pb2.subject]]
        sealed = message.fields_by_name[SEALED]
        assert subject.type == subject.TYPE_STRING
        assert not is_personal(subject)
        assert sealed.type == sealed.TYPE_BYTES
        assert is_personal(sealed)
