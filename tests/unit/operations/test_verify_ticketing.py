"""The independent folds of ticketing: equal to the other folds, and strict about contradictions."""

from typing import Any

import pytest
from diptych.banking.v1.types_pb2 import Hold
from diptych.ticketing.v1 import events_pb2
from diptych.ticketing.v1.types_pb2 import Booking, Row, SeatRange, Section
from google.type.money_pb2 import Money

from command_server.contexts.ticketing.domain.messages import (
    BuySeats,
    CancelShow,
    ExpireSeats,
    FailPurchase,
    IssueTickets,
    RefundTickets,
    ReleaseSeats,
    SettleShow,
)
from contracts.envelope import RecordedEvent
from diptych_testing import folds
from diptych_testing.scenario import NOW
from operations.verify.checks.purchase import compare
from operations.verify.contexts.ticketing import fold_show
from operations.verify.model import Event
from tests.support.builders.theatre import DEADLINE, hold, make_theatre

SCHEDULED = events_pb2.ShowScheduled(sections=[Section(section_id="stalls", rows=[Row(label="A", seats=3)])])
PRICE = Money(currency_code="EUR", units=20)


def test_all_folds_are_the_same_at_every_step() -> None:
    world = make_theatre()
    for command in (
        hold("b-1", 2),
        BuySeats("b-1", "a-1"),
        IssueTickets("b-1"),
        hold("b-2", 3, section="floor", buyer="bob"),
        BuySeats("b-2", "a-1"),
        FailPurchase("b-2", "FUNDS_INSUFFICIENT"),
        hold("b-3", 1, buyer="bob"),
        hold("b-4", 1, buyer="cy"),
        ReleaseSeats("b-4", "enough"),
        CancelShow("s-1", "rain"),
        RefundTickets("b-1"),
        SettleShow("s-1"),
    ):
        assert world.execute(command)
        folds.compare(world)
    world.now = DEADLINE
    world.execute(ExpireSeats("b-3"))
    folds.compare(world)
    world.assert_snapshots_decode()


def held(first: int, length: int, available: int, count: int = 0) -> events_pb2.SeatsHeld:
    seats = [SeatRange(row="A", first=first, count=length)]
    return events_pb2.SeatsHeld(section_id="stalls", seats=seats, count=count or length, available=available)


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ((held(1, 1, 2),), "cannot be version 1"),
        ((SCHEDULED, held(1, 2, 1), held(2, 1, 0)), "moves seats that are not free"),
        ((SCHEDULED, held(3, 2, 1)), "moves seats that are not free"),
        ((SCHEDULED, held(1, 2, 2)), "available of SeatsHeld is 2, the sum is 1"),
        ((SCHEDULED, held(1, 2, 0, count=3)), "impossible number of seats"),
    ],
)
def test_events_that_contradict_each_other_cannot_be_folded(messages: Any, problem: str) -> None:
    events = [
        Event(RecordedEvent("ticketing.show.s-1", n, type(message).__name__, b"", NOW, n, {}), message)
        for n, message in enumerate(messages, 1)
    ]
    with pytest.raises(ValueError, match=problem):
        fold_show(events)


@pytest.mark.parametrize(
    ("status", "booking", "hold_states", "refunds", "problems"),
    [
        ("SOLD", "SOLD", ["CAPTURED"], 0, []),
        ("RETURNED", "RETURNED", ["CAPTURED"], 1, []),
        ("FAILED", "RELEASED", ["RELEASED"], 0, []),
        ("FAILED", "RELEASED", [], 0, []),
        ("SOLD", "RELEASED", ["CAPTURED"], 0, ["is SOLD, but its booking is RELEASED"]),
        ("SOLD", "SOLD", ["FIRM"], 0, ["is SOLD, but its hold is FIRM"]),
        ("SOLD", "SOLD", [], 0, ["is SOLD, but has 0 holds"]),
        ("FAILED", "RELEASED", ["CAPTURED"], 0, ["is FAILED, but its hold is CAPTURED"]),
        ("RETURNED", "RETURNED", ["CAPTURED"], 2, ["is RETURNED, but made 2 refunds"]),
    ],
)
def test_a_purchase_whose_money_and_seats_differ_is_found(
    status: str, booking: str, hold_states: list[str], refunds: int, problems: list[str]
) -> None:
    view = Booking(state=Booking.State.Value(f"STATE_{booking}"), total=PRICE)
    holds = [Hold(state=Hold.State.Value(f"STATE_{state}"), captured=PRICE) for state in hold_states]
    assert list(compare(status, view, holds, [PRICE] * refunds)) == problems


def test_an_amount_that_is_not_the_price_is_found() -> None:
    view = Booking(state=Booking.STATE_SOLD, total=PRICE)
    holds = [Hold(state=Hold.STATE_CAPTURED, captured=Money(currency_code="EUR", units=19))]
    assert list(compare("SOLD", view, holds, [])) == ["the captured amount is not the price of its seats"]
