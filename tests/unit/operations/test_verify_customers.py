"""The independent folds of customers: equal to the other folds, and strict about contradictions."""

from datetime import UTC, datetime
from typing import Any

import pytest
from diptych.customers.v1 import events_pb2
from google.protobuf.message import Message

from command_server.contexts.customers import CONTEXT
from command_server.contexts.customers.domain.messages import ChangeName, CloseCustomer, RemoveAddress
from contracts.envelope import RecordedEvent
from diptych_testing import folds
from diptych_testing.world import World
from operations.verify.contexts.customers import fold_claim, fold_customer, list_claimants, list_claims
from operations.verify.model import Event
from tests.support.builders.people import ADA, BOB, add_address, confirm, register, request_email


def test_all_folds_of_customers_are_the_same_at_every_step() -> None:
    world = World(*CONTEXT.deciders)
    for command in (
        register(ADA, "ada@example.com"),
        ChangeName(ADA, "Ada Lovelace"),
        add_address(ADA, "home"),
        add_address(ADA, "work"),
        request_email(ADA, "ada@other.example"),
        confirm(ADA, "ada@other.example"),
        register(BOB, "ada@example.com"),
        RemoveAddress(ADA, "home"),
        request_email(ADA, "ada@third.example"),
        CloseCustomer(ADA),
    ):
        assert world.execute(command)
        folds.compare(world)
    world.assert_snapshots_decode()


def record(*messages: Message) -> list[Event]:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    return [
        Event(RecordedEvent("a.b.c", n, message.DESCRIPTOR.full_name, b"", now, n, {}), message)
        for n, message in enumerate(messages, 1)
    ]


REGISTERED, CLOSED = events_pb2.CustomerRegistered(claim_id="c-1"), events_pb2.CustomerClosed()
ADDED, REMOVED = events_pb2.AddressAdded(address_id="a"), events_pb2.AddressRemoved(address_id="a")
CLAIMED, FREED = events_pb2.EmailClaimed(customer_id="i-1"), events_pb2.EmailFreed(customer_id="i-1")


@pytest.mark.parametrize(
    ("fold", "messages", "problem"),
    [
        (fold_customer, (CLOSED,), "cannot be version 1"),
        (fold_customer, (REGISTERED, REGISTERED), "registered once"),
        (fold_customer, (REGISTERED, CLOSED, ADDED), "closed once, and last"),
        (fold_customer, (REGISTERED, ADDED, ADDED), "impossible change of address a"),
        (fold_customer, (REGISTERED, REMOVED), "impossible change of address a"),
        (fold_claim, (CLAIMED, CLAIMED), "version 2 takes a claim from another customer"),
        (fold_claim, (CLAIMED, events_pb2.EmailFreed(customer_id="i-2")), "version 2 takes a claim"),
        (fold_claim, (FREED,), "version 1 takes a claim"),
    ],
)
def test_events_that_contradict_each_other_cannot_be_folded(
    fold: Any, messages: tuple[Message, ...], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        fold(record(*messages))


def test_an_open_customer_and_its_claim_name_each_other() -> None:
    changed = events_pb2.EmailChanged(claim_id="c-2")
    assert list(list_claims(record(REGISTERED))) == ["customers.email_claim.c-1"]
    assert list(list_claims(record(REGISTERED, changed))) == ["customers.email_claim.c-2"]
    assert list(list_claims(record(REGISTERED, changed, CLOSED))) == []
    assert list(list_claimants(record(CLAIMED))) == ["customers.customer.i-1"]
    assert list(list_claimants(record(CLAIMED, FREED))) == []
