"""Rules of ticketing: seats are held, bought, returned and released, each by one booking at a time."""

from datetime import timedelta
from typing import Any

import pytest

from command_server.contexts.ticketing import CONTEXT
from command_server.contexts.ticketing.domain.messages import (
    BuySeats,
    CancelShow,
    ExpireSeats,
    FailPurchase,
    IssueTickets,
    LocalTime,
    RefundTickets,
    ReleaseSeats,
    ReturnTickets,
    Row,
    SeatRange,
    Section,
    SettleShow,
)
from command_server.contexts.ticketing.domain.show import SHOW
from command_server.kernel.money import Money
from diptych_testing import folds
from diptych_testing.scenario import NOW
from diptych_testing.world import World, names_of
from tests.support.builders.theatre import (
    DEADLINE,
    DOORS,
    FLOOR,
    PRICE,
    STALLS,
    draw,
    get_booking,
    get_show,
    hold,
    make_theatre,
    schedule,
)

BUY, ISSUE, EXPIRE = BuySeats("b-1", "a-1"), IssueTickets("b-1"), ExpireSeats("b-1")
RELEASE, FAIL = ReleaseSeats("b-1", "changed my mind"), FailPurchase("b-1", "FUNDS_INSUFFICIENT")
RETURN, REFUND = ReturnTickets("b-1", "ill"), RefundTickets("b-1")
CANCEL, SETTLE = CancelShow("s-1", "rain"), SettleShow("s-1")


@pytest.fixture
def world() -> World:
    """The show s-1: rows A of six and B of four seats, and a floor of eight places."""
    return make_theatre()


# Seats.


def test_seats_together_are_those_that_break_up_the_least(world: World) -> None:
    world.execute(hold("b-1", 3))
    assert draw(world) == ["......", "xxx."]  # B is the shorter run
    world.execute(hold("b-2", 1))
    assert draw(world) == ["......", "xxxx"]  # the single one is shorter than six
    world.execute(hold("b-3", (SeatRange("A", 3, 1),), buyer="bob"), hold("b-4", 2, buyer="bob"))
    assert draw(world) == ["xxx...", "xxxx"]
    world.assert_rejected(hold("b-5", 4, buyer="cy"), "SEATS_TAKEN", available="3")


def test_of_equal_runs_the_one_nearest_to_the_stage_is_taken() -> None:
    world = make_theatre(Section("stalls", PRICE, (Row("A", 3), Row("B", 3)), 0))
    world.execute(hold("b-1", 2))
    assert draw(world) == ["xx.", "..."]


def test_seats_that_are_free_but_apart_are_not_together(world: World) -> None:
    world.execute(hold("b-1", tuple(SeatRange("A", seat, 1) for seat in (2, 5))))
    world.execute(hold("b-2", (SeatRange("B", 2, 2),), buyer="bob"))
    world.assert_rejected(hold("b-3", 3, buyer="cy"), "SEATS_NOT_TOGETHER", available="6")


def test_a_seat_is_held_once(world: World) -> None:
    world.execute(hold("b-1", (SeatRange("A", 1, 3), SeatRange("B", 4, 1))))
    assert draw(world) == ["xxx...", "...x"]
    for seats in (SeatRange("A", 3, 2), SeatRange("B", 4, 1)):
        world.assert_rejected(hold("b-2", (seats,), buyer="bob"), "SEATS_TAKEN", row=seats.row)


@pytest.mark.parametrize(
    ("seats", "reason"),
    [
        ((SeatRange("Z", 1, 1),), "SEAT_UNKNOWN"),
        ((SeatRange("A", 0, 1),), "SEAT_UNKNOWN"),
        ((SeatRange("B", 4, 2),), "SEAT_UNKNOWN"),
        ((SeatRange("", 0, 1),), "SEAT_UNKNOWN"),
        ((SeatRange("A", 1, 2), SeatRange("A", 2, 1)), "SEAT_REPEATED"),
        ((), "SEATS_INVALID"),
    ],
)
def test_named_seats_exist_and_are_named_once(world: World, seats: Any, reason: str) -> None:
    world.assert_rejected(hold("b-1", seats), reason)
    assert draw(world) == ["......", "...."]


def test_seats_are_named_or_counted_but_not_both(world: World) -> None:
    command = hold("b-1", (SeatRange("A", 1, 1),))
    world.assert_rejected(type(command)(*_fields(command, count=1)), "SEATS_INVALID")


def _fields(command: Any, **changes: Any) -> tuple[Any, ...]:
    return tuple(changes.get(name, getattr(command, name)) for name in command.__slots__)


def test_places_of_general_admission_have_no_numbers(world: World) -> None:
    world.execute(hold("b-1", 5, section="floor"))
    assert get_booking(world, "b-1").seats == (SeatRange("", 0, 5),)
    world.assert_rejected(hold("b-2", 4, section="floor", buyer="bob"), "SEATS_TAKEN", available="3")
    world.execute(RELEASE)
    assert [section.available for section in get_show(world).sections] == [10, 8]


def test_one_buyer_holds_and_has_no_more_than_the_limits(world: World) -> None:
    world.execute(hold("b-1", 2), hold("b-2", 2))
    world.assert_rejected(hold("b-3", 1), "HOLDS_TOO_MANY", most="2")
    world.execute(BUY, ISSUE)
    world.assert_rejected(hold("b-3", 3), "SEATS_TOO_MANY", most="6", has="4")
    world.execute(hold("b-3", 2), ReleaseSeats("b-3", "enough"), RETURN, hold("b-4", 4))
    world.execute(hold("b-5", 2, buyer="bob"))


def test_seats_of_an_unknown_show_or_section_cannot_be_held(world: World) -> None:
    world.assert_rejected(hold("b-1", show_id="s-9"), "SHOW_NOT_FOUND", show_id="s-9")
    world.assert_rejected(hold("b-1", section="balcony"), "SECTION_UNKNOWN", section_id="balcony")


# Bookings.


def test_a_booking_is_made_once(world: World) -> None:
    world.execute(hold("b-1", 2))
    world.assert_unchanged(hold("b-1", 2))
    other_deadline = hold("b-1", 2, deadline=DEADLINE + timedelta(1))
    same_seats_by_name = hold("b-1", get_booking(world, "b-1").seats)
    for other in (hold("b-1", 1), hold("b-1", 2, buyer="bob"), other_deadline, same_seats_by_name):
        world.assert_rejected(other, "BOOKING_EXISTS", booking_id="b-1")


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(hours=1, microseconds=1)])
def test_a_deadline_is_in_the_future_by_at_most_an_hour(world: World, ahead: timedelta) -> None:
    world.assert_rejected(hold("b-1", deadline=NOW + ahead), "HOLD_DEADLINE_INVALID")


def test_held_seats_expire_at_their_deadline(world: World) -> None:
    world.execute(hold("b-1", 2))
    world.assert_rejected(EXPIRE, "HOLD_NOT_EXPIRED", deadline=str(DEADLINE))
    world.now = DEADLINE
    world.assert_rejected(BUY, "BOOKING_EXPIRED", booking_id="b-1")
    assert names_of(world.execute(EXPIRE)) == ["BookingExpired", "SeatsReleased", "AllowanceChanged"]
    world.assert_unchanged(EXPIRE)
    assert draw(world) == ["......", "...."]


def test_a_purchase_removes_the_deadline(world: World) -> None:
    world.execute(hold("b-1", 2), BUY)
    world.now = DEADLINE
    world.assert_unchanged(EXPIRE)
    world.assert_unchanged(BUY)
    world.assert_rejected(BuySeats("b-1", "a-2"), "BOOKING_ALREADY_PAYING")
    world.assert_rejected(RELEASE, "BOOKING_ALREADY_PAYING")
    assert get_booking(world, "b-1").total == Money("EUR", 40)
    world.execute(ISSUE)
    assert get_show(world).sold == 2


def test_a_failed_purchase_frees_its_seats(world: World) -> None:
    world.execute(hold("b-1", 2), BUY, FAIL)
    world.assert_unchanged(FAIL)
    assert (draw(world), get_show(world).sold) == (["......", "...."], 0)
    world.assert_rejected(ISSUE, "BOOKING_ALREADY_RELEASED")


def test_returned_tickets_free_their_seats(world: World) -> None:
    world.execute(hold("b-1", 2), BUY, ISSUE, RETURN)
    world.assert_unchanged(RETURN)
    assert (draw(world), get_show(world).sold) == (["......", "...."], 0)


def test_once_the_doors_are_open_nothing_is_held_or_returned(world: World) -> None:
    world.execute(hold("b-1", 2), BUY, ISSUE)
    world.now = get_show(world).doors_at or NOW
    world.assert_rejected(hold("b-2", deadline=world.now + timedelta(minutes=1)), "SHOW_HAS_BEGUN")
    world.assert_rejected(RETURN, "SHOW_HAS_BEGUN")


@pytest.mark.parametrize(
    "command", [BUY, ISSUE, EXPIRE, RELEASE, FAIL, RETURN, REFUND], ids=lambda c: type(c).__name__
)
def test_a_command_for_an_unknown_booking_is_not_found(world: World, command: Any) -> None:
    world.assert_rejected(command, "BOOKING_NOT_FOUND", booking_id="b-1")


# Shows.


def test_a_cancelled_show_is_settled_once_no_ticket_is_left(world: World) -> None:
    world.execute(hold("b-1", 2), BUY, ISSUE, hold("b-2", 1), BuySeats("b-2", "a-1"))
    world.assert_rejected(REFUND, "SHOW_NOT_CANCELLED")
    world.assert_rejected(SETTLE, "SHOW_NOT_CANCELLED")
    world.execute(CANCEL)
    world.assert_unchanged(CANCEL)
    world.assert_rejected(hold("b-3"), "SHOW_CANCELLED")
    world.assert_rejected(IssueTickets("b-2"), "SHOW_CANCELLED")
    world.assert_rejected(SETTLE, "SHOW_HAS_TICKETS", sold="2")
    world.execute(REFUND)
    world.assert_unchanged(REFUND)
    world.execute(SETTLE)
    world.assert_unchanged(SETTLE)
    folds.compare(world)


def test_a_show_is_scheduled_once(world: World) -> None:
    world.assert_unchanged(schedule())
    world.execute(hold("b-1", 3))
    world.assert_unchanged(schedule())
    for other in (schedule(title="Macbeth"), schedule("s-1", STALLS), schedule(seats_per_buyer=5)):
        world.assert_rejected(other, "SHOW_EXISTS", show_id="s-1")


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ((STALLS, STALLS), "SECTION_REPEATED"),
        ((Section("a", PRICE, (), 0),), "SECTION_HAS_NO_SEATS"),
        ((Section("a", PRICE, (Row("A", 1),), 1),), "SECTION_HAS_NO_SEATS"),
        ((Section("a", PRICE, (Row("A", 1), Row("A", 2)), 0),), "ROW_REPEATED"),
        ((STALLS, Section("a", Money("USD", 1), (), 1)), "SHOW_CURRENCIES_DIFFER"),
        ((FLOOR, Section("a", PRICE, (), 99_993)), "SHOW_TOO_LARGE"),
        ((Section("a", Money("EUR", -1), (), 1),), "FIELD_INVALID"),
        ((Section("a", Money("EUR", 10**12), (), 1),), "FIELD_INVALID"),
    ],
)
def test_a_seat_map_does_not_contradict_itself(sections: Any, reason: str) -> None:
    World(*CONTEXT.deciders).assert_rejected(schedule("s-2", *sections), reason)


@pytest.mark.parametrize(
    ("doors", "reason"),
    [
        (LocalTime(2027, 3, 28, 2, 30, "Europe/Berlin"), "DOORS_TIME_SKIPPED"),
        (LocalTime(2027, 10, 31, 2, 30, "Europe/Berlin"), "DOORS_TIME_REPEATED"),
        (LocalTime(2027, 2, 30, 20, 0, "Europe/Berlin"), "DOORS_TIME_INVALID"),
        (LocalTime(2027, 1, 1, 20, 0, "Europe/Atlantis"), "TIME_ZONE_UNKNOWN"),
        (LocalTime(2027, 1, 1, 20, 0, "../etc"), "FIELD_INVALID"),
        (LocalTime(2027, 1, 1, 20, 0, "Europe"), "TIME_ZONE_UNKNOWN"),
        (LocalTime(1999, 1, 1, 20, 0, "Europe/Berlin"), "DOORS_TIME_PAST"),
    ],
)
def test_doors_open_at_a_time_that_clocks_show_once(doors: LocalTime, reason: str) -> None:
    World(*CONTEXT.deciders).assert_rejected(schedule("s-2", doors=doors), reason)


def test_doors_open_at_the_local_time(world: World) -> None:
    doors_at = get_show(world).doors_at
    assert doors_at is not None
    assert (doors_at.day, doors_at.minute) == (DOORS.day, DOORS.minute)
    assert DOORS.hour - doors_at.hour in (1, 2)  # Berlin is ahead of UTC


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Ham\u202elet", "TEXT_CHARACTER_FORBIDDEN"),
        ("Ham\tlet", "TEXT_CHARACTER_FORBIDDEN"),
        ("Ham\u200blet", "TEXT_CHARACTER_FORBIDDEN"),
        (" ", "TEXT_EMPTY"),
        ("x" * 201, "FIELD_INVALID"),
    ],
)
def test_a_title_shows_what_it_says(text: str, reason: str) -> None:
    World(*CONTEXT.deciders).assert_rejected(schedule("s-2", title=text), reason, field="title")


def test_a_shows_state_does_not_grow_with_its_bookings() -> None:
    rows = tuple(Row(f"R{number}", 50) for number in range(200))
    world = make_theatre(Section("stalls", PRICE, rows, 0))
    before = len(world.snapshot(SHOW.stream("s-1")))
    world.execute(*(hold(f"b-{number}", 5, buyer=f"u-{number}") for number in range(500)))
    after = len(world.snapshot(SHOW.stream("s-1")))
    print("characters of the state:", before, after)
    assert after < 10_000
    world.assert_snapshots_decode()
