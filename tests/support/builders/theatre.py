"""Shows and commands for tests of ticketing's rules."""

from datetime import datetime, timedelta

from command_server.contexts.ticketing import CONTEXT
from command_server.contexts.ticketing.domain.booking import BOOKING, Booking
from command_server.contexts.ticketing.domain.messages import (
    HoldSeats,
    JoinWaitingList,
    LocalTime,
    Row,
    ScheduleShow,
    SeatRange,
    Section,
)
from command_server.contexts.ticketing.domain.show import SHOW, Show
from command_server.kernel.money import Money
from diptych_testing.scenario import NOW
from diptych_testing.world import World

DEADLINE = NOW + timedelta(minutes=10)
DOORS = LocalTime(NOW.year + 1, 2, 15, 20, 0, "Europe/Berlin")
PRICE = Money("EUR", 20)
STALLS = Section("stalls", PRICE, (Row("A", 6), Row("B", 4)), 0)
FLOOR = Section("floor", Money("EUR", 10), (), 8)


def schedule(
    show_id: str = "s-1",
    *sections: Section,
    doors: LocalTime = DOORS,
    seats_per_buyer: int = 6,
    title: str = "Hamlet",
) -> ScheduleShow:
    """Return the command that schedules a show, with ten seats in rows and eight places by default."""
    return ScheduleShow(
        show_id, title, "Globe", "london", doors, sections or (STALLS, FLOOR), seats_per_buyer
    )


def make_theatre(*sections: Section) -> World:
    """Return a world with the show s-1."""
    world = World(*CONTEXT.deciders)
    world.execute(schedule("s-1", *sections))
    return world


def hold(
    booking_id: str,
    seats: int | tuple[SeatRange, ...] = 1,
    *,
    buyer: str = "ada",
    section: str = "stalls",
    deadline: datetime = DEADLINE,
    show_id: str = "s-1",
) -> HoldSeats:
    """Return the command that holds a number of seats, or these."""
    count, named = (seats, ()) if isinstance(seats, int) else (0, seats)
    return HoldSeats(booking_id, show_id, section, buyer, count, named, deadline)


def join(booking_id: str, count: int = 1, *, buyer: str = "", section: str = "stalls") -> JoinWaitingList:
    """Return the command that waits for seats of s-1; the buyer has the booking's name by default."""
    return JoinWaitingList("s-1", section, buyer or f"buyer-{booking_id}", booking_id, count)


def get_show(world: World, show_id: str = "s-1") -> Show:
    show: Show = world.state(SHOW.stream(show_id))
    return show


def get_booking(world: World, booking_id: str) -> Booking:
    booking: Booking = world.state(BOOKING.stream(booking_id))
    return booking


def draw(world: World) -> list[str]:
    """Return the rows of the stalls of s-1, with `x` for a taken seat."""
    section = get_show(world).sections[0]
    return [
        "".join("x" if mask >> seat & 1 else "." for seat in range(row.seats))
        for row, mask in zip(section.rows, section.taken, strict=True)
    ]
