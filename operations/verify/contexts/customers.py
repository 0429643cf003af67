"""The independent folds of customers: they find the last event of a type, and count claims.

Rules and projector fold event by event instead, so a mistake that both make does not repeat here.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from diptych.customers.v1 import events_pb2
from diptych.customers.v1.types_pb2 import Customer, EmailClaim

from contracts.events.customers import EVENTS
from contracts.view_layout import View, index_member
from operations.verify.events import describe_all, find_last, get_first, iterate, select
from operations.verify.formats import columns, encode_time, list_entries
from operations.verify.model import Aggregate, Event, ProjectionSpec

CUSTOMER, CLAIM = View.of(Customer), View.of(EmailClaim)


def find_pending(events: Sequence[Event]) -> Any:
    """Return the last request for another address, or None if it was confirmed or the customer is closed."""
    ends = (events_pb2.EmailChanged, events_pb2.CustomerClosed)
    last = find_last(events, events_pb2.EmailChangeRequested, *ends)
    return None if isinstance(last, ends) else last


def find_addresses(events: Sequence[Event]) -> dict[str, Any]:
    """Return the addresses by id, in the order in which they were added.

    Raises:
        ValueError: an id was given to two addresses, or an address was removed that was not there.
    """
    kept: dict[str, Any] = {}
    for message in iterate(events, events_pb2.AddressAdded, events_pb2.AddressRemoved):
        if isinstance(message, events_pb2.AddressAdded) == (message.address_id in kept):
            raise ValueError(f"impossible change of address {message.address_id}")
        if isinstance(message, events_pb2.AddressAdded):
            kept[message.address_id] = message.personal.address
        else:
            del kept[message.address_id]
    return kept


def fold_customer(events: Sequence[Event]) -> Customer:
    """Return the view of a customer.

    Raises:
        ValueError: the first event is not the only CustomerRegistered, or something follows the end.
    """
    first = get_first(events, events_pb2.CustomerRegistered)
    closed = select(events, events_pb2.CustomerClosed)
    if len(select(events, events_pb2.CustomerRegistered)) > 1:
        raise ValueError("a customer is registered once")
    if closed and (len(closed) > 1 or events[-1].message != closed[0]):
        raise ValueError("a customer is closed once, and last")
    named = find_last(events, events_pb2.CustomerRegistered, events_pb2.NameChanged)
    view = Customer(
        customer_id=first.customer_id,
        version=len(events),
        state=Customer.STATE_CLOSED if closed else Customer.STATE_OPEN,
        name=named.personal.name,
        email=find_email(events).personal.email,
        addresses=[
            Customer.AddressEntry(address_id=id_, address=address)
            for id_, address in find_addresses(events).items()
        ],
        register_time=first.registered_at,
        close_time=closed[0].closed_at if closed else None,
    )
    if pending := find_pending(events):
        view.pending_email.email = pending.personal.email
        view.pending_email.expire_time.CopyFrom(pending.expires_at)
    return view


def find_email(events: Sequence[Event]) -> Any:
    """Return the event that gave the customer the present address."""
    return find_last(events, events_pb2.CustomerRegistered, events_pb2.EmailChanged)


def fold_customer_snapshot(events: Sequence[Event]) -> dict[str, Any]:
    """Return the state that `decide` works on, as JSON."""
    view, pending = fold_customer(events), find_pending(events)
    return {
        "status": Customer.State.Name(view.state).removeprefix("STATE_"),
        "name": view.name,
        "email": view.email,
        "claim_id": find_email(events).claim_id,
        "pending_email": pending
        and {"email": pending.personal.email, "expires_at": encode_time(pending.expires_at)},
        "addresses": [
            {"address_id": entry.address_id, "address": encode_address(entry.address)}
            for entry in view.addresses
        ],
    }


def encode_address(address: Any) -> dict[str, Any]:
    """Return a postal address as in a snapshot."""
    texts = {name: getattr(address, name) for name in ("recipient", "postal_code", "locality", "region_code")}
    return texts | {"address_lines": list(address.address_lines)}


def list_claims(events: Sequence[Event]) -> Iterator[str]:
    """Yield the claim of an open customer."""
    if not select(events, events_pb2.CustomerClosed):
        yield f"customers.email_claim.{find_email(events).claim_id}"


def fold_claim(events: Sequence[Event]) -> EmailClaim:
    """Return the view of an email claim.

    Raises:
        ValueError: it was claimed while a customer had it, or freed by one who did not.
    """
    customer_id = ""
    for event in events:
        message = event.message
        if isinstance(message, events_pb2.EmailClaimed):
            before, after = "", message.customer_id
        else:
            before, after = message.customer_id, ""
        if customer_id != before:
            raise ValueError(f"version {event.recorded.version} takes a claim from another customer")
        customer_id = after
    return EmailClaim(claim_id=events[0].message.claim_id, version=len(events), customer_id=customer_id)


def list_claimants(events: Sequence[Event]) -> Iterator[str]:
    """Yield the customer with the address of a claim."""
    if customer_id := fold_claim(events).customer_id:
        yield f"customers.customer.{customer_id}"


def customer_indexes(view: Customer) -> list[tuple[str, str]]:
    member = index_member(view.register_time.ToMicroseconds(), view.customer_id)
    return list_entries(CUSTOMER, member, ("all",))


AGGREGATES = (
    Aggregate(
        "customers.customer",
        events=EVENTS,
        snapshot=fold_customer_snapshot,
        projections=(
            ProjectionSpec(
                CUSTOMER,
                fold=fold_customer,
                columns=columns("state"),
                indexes=customer_indexes,
                history=describe_all,
            ),
        ),
        list_counterparts=list_claims,
    ),
    Aggregate(
        "customers.email_claim",
        events=EVENTS,
        snapshot=lambda events: {"customer_id": fold_claim(events).customer_id},
        projections=(ProjectionSpec(CLAIM, fold=fold_claim, columns=columns("customer_id")),),
        list_counterparts=list_claimants,
    ),
)
