"""Rules of waiting lists: freed seats are offered to who is next, and to nobody else."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from command_server.contexts.ticketing.domain.messages import (
    CancelShow,
    ExpireSeats,
    LeaveWaitingList,
    OfferSeats,
    ReleaseSeats,
    Row,
    Section,
)
from command_server.contexts.ticketing.domain.waiting_list import (
    MAX_ENTRIES,
    OFFER_DURATION,
    waiting_list_stream,
)
from diptych_testing import folds
from diptych_testing.world import World, names_of
from tests.support.builders.theatre import PRICE, draw, get_booking, get_show, hold, join, make_theatre

OFFER = OfferSeats("s-1", "stalls")


def leave(booking_id: str) -> LeaveWaitingList:
    return LeaveWaitingList("s-1", "stalls", booking_id)


@pytest.fixture
def world() -> World:
    """A row of four seats, held in two bookings of two."""
    world = make_theatre(Section("stalls", PRICE, (Row("A", 4),), 0))
    world.execute(hold("b-1", 2), hold("b-2", 2, buyer="bob"))
    return world


def list_waiting(world: World) -> list[str]:
    return [entry.booking_id for entry in world.state(waiting_list_stream("s-1", "stalls")).entries]


def test_who_is_next_is_offered_the_freed_seats(world: World) -> None:
    world.execute(join("w-1", 2), join("w-2", 1))
    assert names_of(world.execute(ReleaseSeats("b-1", "enough")))[1] == "SeatsReleased"
    world.assert_rejected(hold("b-3", 1, buyer="cy"), "SEATS_AWAITED", section_id="stalls")
    world.execute(OFFER)
    offered = get_booking(world, "w-1")
    assert (offered.count, offered.deadline) == (2, world.now + OFFER_DURATION)
    assert (list_waiting(world), draw(world)) == (["w-2"], ["xxxx"])
    folds.compare(world)
    world.assert_snapshots_decode()


def test_an_offer_that_expires_goes_to_the_next_one(world: World) -> None:
    world.execute(join("w-1", 2), join("w-2", 1), ReleaseSeats("b-1", "enough"), OFFER)
    world.now += OFFER_DURATION
    world.execute(ExpireSeats("w-1"), OFFER)
    assert (list_waiting(world), draw(world)) == ([], ["x.xx"])
    world.execute(hold("b-3", 1, buyer="cy", deadline=world.now + timedelta(minutes=1)))
    folds.compare(world)


def test_freed_seats_tell_who_waits_for_them(world: World) -> None:
    (_, free, _) = world.execute(ReleaseSeats("b-1", "enough"))
    assert free.waiting_list_id == ""
    world.execute(hold("b-3", 2, buyer="cy"), join("w-1"))
    (_, awaited, _) = world.execute(ReleaseSeats("b-2", "enough"))
    assert waiting_list_stream("s-1", "stalls").endswith(awaited.waiting_list_id)
    assert awaited.waiting_list_id


def test_nobody_waits_for_seats_that_are_free(world: World) -> None:
    world.execute(ReleaseSeats("b-1", "enough"))
    world.assert_rejected(join("w-1", 4), "SEATS_AVAILABLE", available="2")


def test_who_waits_does_not_pass_the_one_before(world: World) -> None:
    world.execute(join("w-1", 3), join("w-2", 1), ReleaseSeats("b-1", "enough"))
    world.assert_rejected(OFFER, "SEATS_TAKEN", available="2")
    assert list_waiting(world) == ["w-1", "w-2"]
    world.execute(leave("w-1"), OFFER)
    assert (list_waiting(world), draw(world)) == ([], ["x.xx"])
    assert get_show(world).sections[0].waiting_list_id == ""


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ((hold("w-1", 1, section="floor", buyer="cy"),), "BOOKING_EXISTS"),
        (
            (
                hold("x-1", 1, section="floor", buyer="buyer-w-1"),
                hold("x-2", 1, section="floor", buyer="buyer-w-1"),
            ),
            "HOLDS_TOO_MANY",
        ),
        ((hold("x-1", 5, section="floor", buyer="buyer-w-1"),), "SEATS_TOO_MANY"),
    ],
)
def test_an_entry_that_cannot_be_offered_seats_is_removed(before: Any, reason: str) -> None:
    world = make_theatre(Section("stalls", PRICE, (Row("A", 2),), 0), Section("floor", PRICE, (), 8))
    world.execute(hold("b-1", 2), join("w-1", 2), *before, ReleaseSeats("b-1", "enough"))
    (left, _) = world.execute(OFFER)
    assert (left.reason, list_waiting(world), draw(world)) == (reason, [], [".."])
    folds.compare(world)


def test_a_buyer_waits_once_for_a_section(world: World) -> None:
    world.execute(join("w-1", 2))
    world.assert_unchanged(join("w-1", 2))
    world.assert_rejected(join("w-1", 1), "WAITING_EXISTS", booking_id="w-1")
    world.assert_rejected(join("w-2", buyer="buyer-w-1"), "WAITING_ALREADY", buyer_id="buyer-w-1")
    world.assert_rejected(join("w-2", 7), "SEATS_TOO_MANY", most="6")
    world.assert_rejected(join("w-2", section="balcony"), "SECTION_UNKNOWN")


def test_a_waiting_list_has_a_limit(world: World) -> None:
    world.execute(*(join(f"w-{number}") for number in range(MAX_ENTRIES)))
    world.assert_rejected(join("w-x"), "WAITING_LIST_FULL", most=str(MAX_ENTRIES))
    assert len(world.snapshot(waiting_list_stream("s-1", "stalls"))) < 50_000


def test_who_does_not_wait_can_leave(world: World) -> None:
    world.assert_unchanged(leave("w-1"))
    world.assert_rejected(OFFER, "WAITING_LIST_EMPTY", section_id="stalls")


def test_a_buyer_cannot_take_another_one_off_the_list(world: World) -> None:
    world.execute(join("w-1", 2))
    (waits,) = world.state(waiting_list_stream("s-1", "stalls")).entries
    world.assert_unchanged(replace(leave("w-1"), buyer_id="mallory"))
    world.execute(replace(leave("w-1"), buyer_id=waits.buyer_id))
    assert list_waiting(world) == []


def test_a_cancelled_show_offers_nothing(world: World) -> None:
    world.execute(join("w-1"), CancelShow("s-1", "rain"), ReleaseSeats("b-1", "enough"))
    world.assert_rejected(OFFER, "SHOW_CANCELLED")
    world.assert_rejected(join("w-2"), "SHOW_CANCELLED")
