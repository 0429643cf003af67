"""The show aggregate: the seats of a show that are held or sold.

Every sale of a show changes this one stream, so its state is small: a bit for each seat, and no bookings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any

from command_server.contexts.ticketing.domain import doors, seating
from command_server.contexts.ticketing.domain.messages import (
    CancelShow,
    Row,
    ScheduleShow,
    SeatRange,
    SeatsHeld,
    SeatsReleased,
    SeatsReturned,
    SeatsSold,
    Section,
    SettleShow,
    ShowCancelled,
    ShowScheduled,
    ShowSettled,
    WaitingBegan,
    WaitingEnded,
)
from command_server.kernel.decider import Aggregate, AlreadyExists, NotFound, Rejected, members, one_stream
from command_server.kernel.field_rules import check_fields
from command_server.kernel.money import Money
from command_server.kernel.texts import check_text

MAX_SEATS_IN_ROWS = 10_000
"""Maximum number of numbered seats of a show; its state and its view grow with them."""
MAX_PLACES = 100_000
"""Maximum number of places of general admission of a show."""

Command = ScheduleShow | CancelShow | SettleShow
Event = (
    ShowScheduled
    | SeatsHeld
    | SeatsReleased
    | SeatsSold
    | SeatsReturned
    | WaitingBegan
    | WaitingEnded
    | ShowCancelled
    | ShowSettled
)


class Status(Enum):
    """Statuses of a show; NONE before it is scheduled."""

    NONE = "NONE"
    SCHEDULED = "SCHEDULED"
    CANCELLED = "CANCELLED"
    SETTLED = "SETTLED"


@dataclass(frozen=True, slots=True)
class SectionState:
    """A section, and what is taken of it: held or sold."""

    section_id: str
    price: Money
    rows: tuple[Row, ...]
    capacity: int
    available: int
    taken: tuple[int, ...]
    """The taken seats of each row (`seating`); empty for general admission."""
    waiting_list_id: str = ""
    """The waiting list to which freed seats are offered; empty if nobody waits."""


@dataclass(frozen=True, slots=True)
class Show:
    """The state of a show, as far as the rules need it."""

    status: Status = Status.NONE
    title: str = ""
    venue: str = ""
    place_id: str = ""
    doors_at: datetime | None = None
    seats_per_buyer: int = 0
    sections: tuple[SectionState, ...] = ()
    sold: int = 0

    def has_begun(self, now: datetime) -> bool:
        """Return whether the doors are open."""
        return self.doors_at is not None and self.doors_at <= now

    def find_section(self, section_id: str) -> SectionState | None:
        for section in self.sections:
            if section.section_id == section_id:
                return section
        return None


def count_seats(section: Section) -> int:
    return section.capacity + sum(row.seats for row in section.rows)


def decide(command: Command, show: Show, now: datetime) -> Sequence[Event]:
    check_fields(command)
    id_ = command.show_id
    match command, show.status:
        case ScheduleShow(), Status.NONE:
            return [schedule(command, now)]
        case ScheduleShow(), _:
            if is_same(command, show):
                return []
            raise AlreadyExists("SHOW_EXISTS", show_id=id_)
        case _, Status.NONE:
            raise NotFound("SHOW_NOT_FOUND", show_id=id_)
        case CancelShow(_, reason), Status.SCHEDULED:
            return [ShowCancelled(id_, reason, show.sold, cancelled_at=now)]
        case SettleShow(), Status.SCHEDULED:
            raise Rejected("SHOW_NOT_CANCELLED", show_id=id_)
        case SettleShow(), Status.CANCELLED:
            if show.sold:
                raise Rejected("SHOW_HAS_TICKETS", show_id=id_, sold=show.sold)
            return [ShowSettled(id_, settled_at=now)]
        case _:
            return []


def schedule(command: ScheduleShow, now: datetime) -> ShowScheduled:
    """Return the event of a new show.

    Raises:
        Rejected: a text has unseen characters, the seat map contradicts itself or is too large, or the doors
            time is invalid.
    """
    for name in ("title", "venue"):
        check_text(name, getattr(command, name), is_required=True)
    check_sections(command.sections)
    doors_at = doors.to_utc(command.doors)
    if doors_at <= now:
        raise Rejected("DOORS_TIME_PAST", doors_at=doors_at)
    return ShowScheduled(
        command.show_id,
        command.title,
        command.venue,
        command.place_id,
        doors_at,
        command.doors,
        command.sections,
        command.seats_per_buyer,
        scheduled_at=now,
    )


def check_sections(sections: Sequence[Section]) -> None:
    """Raise Rejected if a section or row is repeated, or if prices or sizes do not fit together."""
    ids: set[str] = set()
    for section in sections:
        id_, labels = section.section_id, {row.label for row in section.rows}
        if id_ in ids:
            raise Rejected("SECTION_REPEATED", section_id=id_)
        ids.add(id_)
        if bool(section.rows) == bool(section.capacity):
            raise Rejected("SECTION_HAS_NO_SEATS", section_id=id_, rule="either rows or a capacity")
        if len(labels) < len(section.rows):
            raise Rejected("ROW_REPEATED", section_id=id_)
    seats, places = (sum(map(count_seats, each)) for each in _split_by_rows(sections))
    if seats > MAX_SEATS_IN_ROWS or places > MAX_PLACES:
        raise Rejected("SHOW_TOO_LARGE", most_seats=MAX_SEATS_IN_ROWS, most_places=MAX_PLACES)
    if len({section.price.currency_code for section in sections}) > 1:
        raise Rejected("SHOW_CURRENCIES_DIFFER")


def _split_by_rows(sections: Sequence[Section]) -> tuple[list[Section], list[Section]]:
    return [each for each in sections if each.rows], [each for each in sections if not each.rows]


def is_same(command: ScheduleShow, show: Show) -> bool:
    """Return whether a command repeats the one that scheduled the show."""
    sections = tuple(
        Section(each.section_id, each.price, each.rows, 0 if each.rows else each.capacity)
        for each in show.sections
    )
    return (
        (command.title, command.venue, command.place_id) == (show.title, show.venue, show.place_id)
        and (command.seats_per_buyer, command.sections) == (show.seats_per_buyer, sections)
        and doors.to_utc(command.doors) == show.doors_at
    )


def evolve(show: Show, event: Event) -> Show:
    match event:
        case ShowScheduled():
            return Show(
                Status.SCHEDULED,
                event.title,
                event.venue,
                event.place_id,
                event.doors_at,
                event.seats_per_buyer,
                tuple(map(_open, event.sections)),
            )
        case SeatsHeld() | SeatsReleased():
            return _change_section(show, event)
        case SeatsSold():
            return replace(show, sold=event.sold)
        case SeatsReturned():
            return replace(_change_section(show, event), sold=event.sold)
        case WaitingBegan(section_id=id_, waiting_list_id=waiting_list_id):
            return _replace_section(show, id_, waiting_list_id=waiting_list_id)
        case WaitingEnded(section_id=id_):
            return _replace_section(show, id_, waiting_list_id="")
        case ShowCancelled():
            return replace(show, status=Status.CANCELLED)
        case ShowSettled():
            return replace(show, status=Status.SETTLED)


def _open(section: Section) -> SectionState:
    seats = count_seats(section)
    return SectionState(
        section.section_id, section.price, section.rows, seats, seats, (0,) * len(section.rows)
    )


def _change_section(show: Show, event: SeatsHeld | SeatsReleased | SeatsReturned) -> Show:
    section = show.find_section(event.section_id)
    taken = _flip(section, event.seats) if section else ()
    return _replace_section(show, event.section_id, available=event.available, taken=taken)


def _replace_section(show: Show, section_id: str, **changes: Any) -> Show:
    return replace(
        show,
        sections=tuple(
            replace(section, **changes) if section.section_id == section_id else section
            for section in show.sections
        ),
    )


def _flip(section: SectionState, seats: Sequence[SeatRange]) -> tuple[int, ...]:
    """Return the taken seats after these were taken, or were freed."""
    if not section.rows:
        return ()
    taken = list(section.taken)
    for each in seats:
        taken[find_row(section, each.row)] ^= seating.to_mask(each.first, each.count)
    return tuple(taken)


def find_row(section: SectionState, label: str) -> int:
    """Return a row's position; -1 if the section has no such row."""
    for position, row in enumerate(section.rows):
        if row.label == label:
            return position
    return -1


SHOW = Aggregate("ticketing.show", Show(), evolve, members(Event))
DECIDER = one_stream(SHOW, Command, key="show_id", decide=decide)
