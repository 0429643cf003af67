"""Commands and events of ticketing's aggregates."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from command_server.kernel.field_rules import Id, OptionalId, at_least, at_most, between, length, matching
from command_server.kernel.money import Limit, Money

MAX_SEATS_IN_ROW = 60
"""Maximum number of seats in a row. The taken ones are the bits of one integer, also in JSON."""
MAX_SEATS = 20
"""Maximum number of seats that one buyer may hold and have of a show, where the show sets no other."""

Text = Annotated[str, length(1, 200)]
Reason = Annotated[str, length(1, 500)]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of seats, numbered from 1."""

    label: Annotated[str, matching("[A-Za-z0-9]{1,8}")]
    seats: Annotated[int, between(1, MAX_SEATS_IN_ROW)]


@dataclass(frozen=True, slots=True)
class Section:
    """Rows of seats at one price, or places of general admission."""

    section_id: Id
    price: Limit
    rows: Annotated[tuple[Row, ...], at_most(200)]
    capacity: Annotated[int, between(0, 100_000)]


@dataclass(frozen=True, slots=True)
class SeatRange:
    """Neighbouring seats of one row, or places of general admission, without row and number."""

    row: Annotated[str, matching("[A-Za-z0-9]{0,8}")]
    first: Annotated[int, between(0, MAX_SEATS_IN_ROW)]
    count: Annotated[int, between(1, MAX_SEATS)]


@dataclass(frozen=True, slots=True)
class LocalTime:
    """A time on the clocks of a place."""

    year: Annotated[int, between(1, 9998)]
    month: Annotated[int, between(1, 12)]
    day: Annotated[int, between(1, 31)]
    hour: Annotated[int, between(0, 23)]
    minute: Annotated[int, between(0, 59)]
    time_zone: Annotated[str, matching("[A-Za-z0-9+_/-]{1,64}")]


# Commands


@dataclass(frozen=True, slots=True)
class ScheduleShow:
    """Schedule a show."""

    show_id: Id
    title: Text
    venue: Text
    place_id: Id
    doors: LocalTime
    sections: Annotated[tuple[Section, ...], at_least(1), at_most(50)]
    seats_per_buyer: Annotated[int, between(1, MAX_SEATS)]


@dataclass(frozen=True, slots=True)
class CancelShow:
    """Cancel a show."""

    show_id: Id
    reason: Reason


@dataclass(frozen=True, slots=True)
class SettleShow:
    """End a cancelled show of which no ticket is left."""

    show_id: Id


@dataclass(frozen=True, slots=True)
class HoldSeats:
    """Hold named seats, or a number of them that are together."""

    booking_id: Id
    show_id: Id
    section_id: Id
    buyer_id: Id
    count: Annotated[int, between(0, MAX_SEATS)]
    seats: Annotated[tuple[SeatRange, ...], at_most(MAX_SEATS)]
    deadline: datetime


@dataclass(frozen=True, slots=True)
class ReleaseSeats:
    """Release held seats."""

    booking_id: Id
    reason: Reason


@dataclass(frozen=True, slots=True)
class ExpireSeats:
    """Release held seats whose deadline has passed."""

    booking_id: Id


@dataclass(frozen=True, slots=True)
class BuySeats:
    """Begin to pay for held seats."""

    booking_id: Id
    account_id: Id


@dataclass(frozen=True, slots=True)
class FailPurchase:
    """Release seats that cannot be paid for."""

    booking_id: Id
    reason: Reason


@dataclass(frozen=True, slots=True)
class IssueTickets:
    """Issue the tickets of seats whose price is held on an account."""

    booking_id: Id


@dataclass(frozen=True, slots=True)
class ReturnTickets:
    """Return the tickets of a booking before the doors open."""

    booking_id: Id
    reason: Reason


@dataclass(frozen=True, slots=True)
class RefundTickets:
    """Take back the tickets of a booking of a cancelled show."""

    booking_id: Id


@dataclass(frozen=True, slots=True)
class JoinWaitingList:
    """Wait for seats of a section of which none is free."""

    show_id: Id
    section_id: Id
    buyer_id: Id
    booking_id: Id
    count: Annotated[int, between(1, MAX_SEATS)]


@dataclass(frozen=True, slots=True)
class LeaveWaitingList:
    """Stop waiting, if the booking is this buyer's; an empty one stands for anybody."""

    show_id: Id
    section_id: Id
    booking_id: Id
    buyer_id: OptionalId = ""


@dataclass(frozen=True, slots=True)
class OfferSeats:
    """Offer free seats to who is next."""

    show_id: Id
    section_id: Id


# Events of a show


@dataclass(frozen=True, slots=True)
class ShowScheduled:
    """A show was scheduled."""

    show_id: str
    title: str
    venue: str
    place_id: str
    doors_at: datetime
    doors: LocalTime
    sections: tuple[Section, ...]
    seats_per_buyer: int
    scheduled_at: datetime


@dataclass(frozen=True, slots=True)
class SeatsHeld:
    """Seats were held."""

    show_id: str
    booking_id: str
    section_id: str
    seats: tuple[SeatRange, ...]
    count: int
    available: int
    held_at: datetime


@dataclass(frozen=True, slots=True)
class SeatsReleased:
    """Held seats are free again."""

    show_id: str
    booking_id: str
    section_id: str
    seats: tuple[SeatRange, ...]
    count: int
    available: int
    released_at: datetime
    waiting_list_id: str


@dataclass(frozen=True, slots=True)
class SeatsSold:
    """Held seats were sold."""

    show_id: str
    booking_id: str
    section_id: str
    seats: tuple[SeatRange, ...]
    count: int
    sold: int
    sold_at: datetime


@dataclass(frozen=True, slots=True)
class SeatsReturned:
    """Sold seats are free again."""

    show_id: str
    booking_id: str
    section_id: str
    seats: tuple[SeatRange, ...]
    count: int
    available: int
    sold: int
    returned_at: datetime
    waiting_list_id: str


@dataclass(frozen=True, slots=True)
class ShowCancelled:
    """A show was cancelled."""

    show_id: str
    reason: str
    sold: int
    cancelled_at: datetime


@dataclass(frozen=True, slots=True)
class ShowSettled:
    """No ticket of a cancelled show is left."""

    show_id: str
    settled_at: datetime


@dataclass(frozen=True, slots=True)
class WaitingBegan:
    """Buyers begin to wait for seats of a section."""

    show_id: str
    section_id: str
    waiting_list_id: str
    began_at: datetime


@dataclass(frozen=True, slots=True)
class WaitingEnded:
    """Nobody waits for seats of a section any more."""

    show_id: str
    section_id: str
    ended_at: datetime


# Events of a waiting list


@dataclass(frozen=True, slots=True)
class WaitingListJoined:
    """A buyer waits for seats."""

    waiting_list_id: str
    show_id: str
    section_id: str
    booking_id: str
    buyer_id: str
    count: int
    joined_at: datetime


@dataclass(frozen=True, slots=True)
class WaitingListLeft:
    """A buyer does not wait any more, without an offer."""

    waiting_list_id: str
    show_id: str
    section_id: str
    booking_id: str
    reason: str
    left_at: datetime


@dataclass(frozen=True, slots=True)
class SeatsOffered:
    """The next buyer was offered seats."""

    waiting_list_id: str
    booking_id: str
    offered_at: datetime


# Events of a booking


@dataclass(frozen=True, slots=True)
class BookingMade:
    """A buyer holds seats."""

    booking_id: str
    show_id: str
    section_id: str
    buyer_id: str
    seats: tuple[SeatRange, ...]
    named: bool
    total: Money
    deadline: datetime
    made_at: datetime


@dataclass(frozen=True, slots=True)
class PurchaseRequested:
    """A buyer pays for held seats: their deadline no longer applies."""

    booking_id: str
    show_id: str
    buyer_id: str
    account_id: str
    total: Money
    requested_at: datetime


@dataclass(frozen=True, slots=True)
class TicketsIssued:
    """A buyer has tickets of the seats."""

    booking_id: str
    issued_at: datetime


@dataclass(frozen=True, slots=True)
class TicketsReturned:
    """The tickets were returned: the price is to be refunded."""

    booking_id: str
    reason: str
    returned_at: datetime


@dataclass(frozen=True, slots=True)
class BookingReleased:
    """Seats were released before they were sold."""

    booking_id: str
    reason: str
    released_at: datetime


@dataclass(frozen=True, slots=True)
class BookingExpired:
    """Seats were released because their deadline had passed."""

    booking_id: str
    expired_at: datetime


@dataclass(frozen=True, slots=True)
class AllowanceChanged:
    """What a buyer holds and has of a show has changed."""

    allowance_id: str
    show_id: str
    buyer_id: str
    booking_id: str
    open_holds: int
    seats: int
    changed_at: datetime
