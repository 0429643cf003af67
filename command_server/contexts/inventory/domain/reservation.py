"""A reservation's story: made for all of its lines or not at all, firm or expired, released or committed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from command_server.contexts.inventory.domain import stock
from command_server.contexts.inventory.domain.messages import (
    CommitReservation,
    ExpireReservation,
    FirmReservation,
    ReleaseReservation,
    ReservationCommitted,
    ReservationExpired,
    ReservationFirmed,
    ReservationLine,
    ReservationMade,
    ReservationReleased,
    ReserveStock,
    StockCommitted,
    StockReleased,
    StockReserved,
)
from command_server.contexts.inventory.domain.stock import STOCK, Stock, stock_stream, with_alert
from command_server.kernel.decider import Aggregate, AlreadyExists, Decider, NotFound, Rejected, members

LONGEST = timedelta(days=7)
"""How far ahead a deadline may lie."""

Command = ReserveStock | FirmReservation | ReleaseReservation | CommitReservation | ExpireReservation
Event = ReservationMade | ReservationFirmed | ReservationReleased | ReservationCommitted | ReservationExpired
Happened = Mapping[str, Sequence[Any]]


class Status(Enum):
    """Where a reservation is in its life."""

    NONE = "NONE"
    OPEN = "OPEN"
    FIRM = "FIRM"
    RELEASED = "RELEASED"
    COMMITTED = "COMMITTED"


@dataclass(frozen=True, slots=True)
class Reservation:
    """A reservation as its rules see it."""

    status: Status = Status.NONE
    lines: tuple[ReservationLine, ...] = ()
    deadline: datetime | None = None

    def expired(self, now: datetime) -> bool:
        """Whether its deadline applies and has passed."""
        return self.status is Status.OPEN and self.deadline is not None and self.deadline <= now


def evolve(reservation: Reservation, event: Event) -> Reservation:
    """Return the reservation after an event."""
    match event:
        case ReservationMade():
            return Reservation(Status.OPEN, event.lines, event.deadline)
        case ReservationFirmed():
            return replace(reservation, status=Status.FIRM)
        case ReservationReleased() | ReservationExpired():
            return replace(reservation, status=Status.RELEASED)
        case ReservationCommitted():
            return replace(reservation, status=Status.COMMITTED)


RESERVATION = Aggregate("inventory.reservation", Reservation(), evolve, members(Event))


def _stocks(lines: Sequence[ReservationLine]) -> list[str]:
    return [stock_stream(line.sku, line.warehouse_id) for line in lines]


def streams(command: Command) -> Sequence[str]:
    """To reserve is about the stock of all lines,"""
    lines = command.lines if isinstance(command, ReserveStock) else ()
    return (RESERVATION.stream(command.reservation_id), *_stocks(lines))


def related_streams(command: Command, states: Mapping[str, Any]) -> Sequence[str]:
    """and so is whatever ends a reservation that holds some."""
    reservation: Reservation = states[RESERVATION.stream(command.reservation_id)]
    ends = isinstance(command, ReleaseReservation | CommitReservation | ExpireReservation)
    return _stocks(reservation.lines) if ends and reservation.status in (Status.OPEN, Status.FIRM) else ()


def decide(command: Command, states: Mapping[str, Any], now: datetime) -> Happened:
    """Return what happens, or raise Rejected."""
    id_ = command.reservation_id
    name = RESERVATION.stream(id_)
    reservation: Reservation = states[name]
    expired = reservation.expired(now)
    match command, reservation.status:
        case ReserveStock(), Status.NONE:
            return reserve(command, states, now)
        case ReserveStock(), _:
            if (command.lines, command.deadline) == (reservation.lines, reservation.deadline):
                return {}
            raise AlreadyExists("RESERVATION_EXISTS", reservation_id=id_)
        case _, Status.NONE:
            raise NotFound("RESERVATION_NOT_FOUND", reservation_id=id_)
        case FirmReservation() | CommitReservation(), Status.OPEN if expired:
            raise Rejected("RESERVATION_EXPIRED", reservation_id=id_, deadline=reservation.deadline)
        case FirmReservation(), Status.OPEN:
            return {name: [ReservationFirmed(id_, firmed_at=now)]}
        case CommitReservation(), Status.OPEN | Status.FIRM:
            left = give_up(reservation, states, StockCommitted, id_, now)
            return {name: [ReservationCommitted(id_, committed_at=now)], **left}
        case ReleaseReservation(), Status.OPEN | Status.FIRM:
            back = give_up(reservation, states, StockReleased, id_, now)
            return {name: [ReservationReleased(id_, command.reason, released_at=now)], **back}
        case ExpireReservation(), Status.OPEN:
            if not expired:
                raise Rejected("RESERVATION_NOT_EXPIRED", reservation_id=id_, deadline=reservation.deadline)
            back = give_up(reservation, states, StockReleased, id_, now)
            return {name: [ReservationExpired(id_, expired_at=now)], **back}
        case ExpireReservation(), _:
            return {}
        case _, status if status is LEADS_TO[type(command)]:
            return {}
    raise Rejected(f"RESERVATION_ALREADY_{reservation.status.name}", reservation_id=id_)


LEADS_TO = {
    FirmReservation: Status.FIRM,
    ReleaseReservation: Status.RELEASED,
    CommitReservation: Status.COMMITTED,
}
"""The status that a command asks for."""


def reserve(command: ReserveStock, states: Mapping[str, Any], now: datetime) -> Happened:
    """Take from the stock of every line what it asks for; refuse where one has too little."""
    if not now < command.deadline <= now + LONGEST:
        raise Rejected("RESERVATION_DEADLINE_INVALID", deadline=command.deadline, most=now + LONGEST)
    name, *_ = states
    happened: dict[str, Sequence[Any]] = {
        name: [ReservationMade(command.reservation_id, command.lines, command.deadline, made_at=now)]
    }
    for line, of in zip(command.lines, _stocks(command.lines), strict=True):
        if of in happened:
            raise Rejected("RESERVATION_LINE_REPEATED", sku=line.sku, warehouse_id=line.warehouse_id)
        stock.check_available(states[of], line.sku, line.warehouse_id, line.quantity)
        happened[of] = taken(states[of], line, command.reservation_id, now)
    return happened


def taken(of: Stock, line: ReservationLine, reservation_id: str, now: datetime) -> Sequence[stock.Event]:
    """Return that some of a stock is reserved."""
    reserved = StockReserved(
        of.sku,
        of.warehouse_id,
        reservation_id,
        line.quantity,
        of.on_hand,
        of.reserved + line.quantity,
        reserved_at=now,
    )
    return with_alert(of, [reserved], now)


def give_up(
    reservation: Reservation,
    states: Mapping[str, Any],
    kind: type[StockReleased] | type[StockCommitted],
    reservation_id: str,
    now: datetime,
) -> Happened:
    """Return what happens to the stock of every line: its pieces are given back, or have left."""
    happened = {}
    for line, name in zip(reservation.lines, _stocks(reservation.lines), strict=True):
        of: Stock = states[name]
        on_hand = of.on_hand - (line.quantity if kind is StockCommitted else 0)
        facts = (of.sku, of.warehouse_id, reservation_id, line.quantity)
        happened[name] = with_alert(of, [kind(*facts, on_hand, of.reserved - line.quantity, now)], now)
    return happened


DECIDER = Decider(members(Command), (RESERVATION, STOCK), "reservation_id", streams, decide, related_streams)
