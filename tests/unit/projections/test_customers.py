"""The changes that each event of customers makes to the views of a customer and of a claim."""

from datetime import UTC, datetime
from typing import Any

from diptych.customers.v1 import events_pb2 as events
from diptych.customers.v1.types_pb2 import Customer, EmailClaim, PostalAddress
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from contracts.envelope import RecordedEvent
from projector.projections.customers.customer import CUSTOMERS
from projector.projections.customers.email_claim import EMAIL_CLAIMS

AT, LATER = Timestamp(seconds=1_767_322_800), Timestamp(seconds=1_767_322_860)
HOME = PostalAddress(recipient="Ada", address_lines=["1 Street"], locality="London", region_code="GB")


def personal(**fields: Any) -> events.PersonalData:
    return events.PersonalData(subject_id="i-1", **fields)


REGISTERED = events.CustomerRegistered(
    customer_id="i-1", personal=personal(name="Ada", email="a@x.example"), claim_id="c-1", registered_at=AT
)
REQUESTED = events.EmailChangeRequested(personal=personal(email="b@x.example"), expires_at=LATER)
ADDED = events.AddressAdded(address_id="home", personal=personal(address=HOME))


def fold(projection: Any, view: Any, *messages: Message) -> Any:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    recorded = [
        RecordedEvent("customers.x.i-1", n, each.DESCRIPTOR.full_name, each.SerializeToString(), now, n, {})
        for n, each in enumerate(messages, 1)
    ]
    rendered, folded_count, error = projection.fold(view(), recorded)
    assert (folded_count, error) == (len(messages), None)
    return rendered.message


def fold_customer(*messages: Message) -> Customer:
    customer: Customer = fold(CUSTOMERS, Customer, REGISTERED, *messages)
    return customer


def test_a_registered_customer_has_a_name_and_an_email_address() -> None:
    expected = Customer(
        customer_id="i-1",
        version=1,
        state=Customer.STATE_OPEN,
        name="Ada",
        email="a@x.example",
        register_time=AT,
    )
    assert fold_customer() == expected
    assert fold_customer(events.NameChanged(personal=personal(name="Bob"))).name == "Bob"


def test_a_requested_email_address_is_pending_until_it_is_confirmed() -> None:
    requested = fold_customer(REQUESTED)
    pending = Customer.PendingEmail(email="b@x.example", expire_time=LATER)
    assert (requested.email, requested.pending_email) == ("a@x.example", pending)
    changed = fold_customer(REQUESTED, events.EmailChanged(personal=personal(email="b@x.example")))
    assert (changed.email, changed.HasField("pending_email")) == ("b@x.example", False)


def test_addresses_are_added_and_removed_by_id() -> None:
    other = events.AddressAdded(address_id="work", personal=personal(address=HOME))
    assert [entry.address_id for entry in fold_customer(ADDED, other).addresses] == ["home", "work"]
    left = fold_customer(ADDED, other, events.AddressRemoved(address_id="home"))
    assert list(left.addresses) == [Customer.AddressEntry(address_id="work", address=HOME)]


def test_a_closed_customer_keeps_what_it_had_and_awaits_nothing() -> None:
    closed = fold_customer(ADDED, REQUESTED, events.CustomerClosed(closed_at=LATER))
    assert (closed.state, closed.email, len(closed.addresses)) == (Customer.STATE_CLOSED, "a@x.example", 1)
    assert (closed.close_time, closed.HasField("pending_email")) == (LATER, False)


def test_a_claim_names_its_customer_until_it_is_freed() -> None:
    claimed, freed = events.EmailClaimed(claim_id="c-1", customer_id="i-1"), events.EmailFreed()
    expected = EmailClaim(claim_id="c-1", version=1, customer_id="i-1")
    assert fold(EMAIL_CLAIMS, EmailClaim, claimed) == expected
    expected = EmailClaim(claim_id="c-1", version=2)
    assert fold(EMAIL_CLAIMS, EmailClaim, claimed, freed) == expected
