"""The reservation aggregate: all of its lines are reserved or none.

An open reservation expires at its deadline; a firm one has no deadline. A reservation ends when it is
released, so that the pieces are available again, or committed, so that they leave their warehouses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

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
from command_server.contexts.inventory.domain.stock import (
    STOCK,
    Stock,
    check_available,
    stock_stream,
    with_alert,
)
from command_server.contexts.inventory.domain.stock import Event as StockEvent
from command_server.kernel.decider import Aggregate, AlreadyExists, Decider, NotFound, Rejected, members
from command_server.kernel.field_rules import check_fields

MAX_DURATION = timedelta(days=7)
"""Maximum time from a reservation to its deadline."""

Command = ReserveStock | FirmReservation | ReleaseReservation | CommitReservation | ExpireReservation
Event = ReservationMade | ReservationFirmed | ReservationReleased | ReservationCommitted | ReservationExpired
EventsByStream = Mapping[str, Sequence[Any]]


class Status(Enum):
    """Statuses of a reservation; NONE before it is made, RELEASED also after it expired."""

    NONE = "NONE"
    OPEN = "OPEN"
    FIRM = "FIRM"
    RELEASED = "RELEASED"
    COMMITTED = "COMMITTED"


@dataclass(frozen=True, slots=True)
class Reservation:
    """The state of a reservation, as far as the rules need it."""

    status: Status = Status.NONE
    lines: tuple[ReservationLine, ...] = ()
    deadline: datetime | None = None

    def is_expired(self, now: datetime) -> bool:
        """Return whether the deadline has passed; a firm reservation has none."""
        return self.status is Status.OPEN and self.deadline is not None and self.deadline <= now


def evolve(reservation: Reservation, event: Event) -> Reservation:
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


def _stock_streams(lines: Sequence[ReservationLine]) -> list[str]:
    return [stock_stream(line.sku, line.warehouse_id) for line in lines]


def streams(command: Command) -> Sequence[str]:
    """ReserveStock also changes the stock of every line of the command."""
    lines = command.lines if isinstance(command, ReserveStock) else ()
    return (RESERVATION.stream(command.reservation_id), *_stock_streams(lines))


def related_streams(command: Command, states: Mapping[str, Any]) -> Sequence[str]:
    """Commands that end a reservation also change the stock of its lines, which only its state names."""
    reservation: Reservation = states[RESERVATION.stream(command.reservation_id)]
    ends = isinstance(command, ReleaseReservation | CommitReservation | ExpireReservation)
    active = reservation.status in (Status.OPEN, Status.FIRM)
    return _stock_streams(reservation.lines) if ends and active else ()


def decide(command: Command, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    check_fields(command)
    id_ = command.reservation_id
    name = RESERVATION.stream(id_)
    reservation: Reservation = states[name]
    expired = reservation.is_expired(now)
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
            stock_events = settle_lines(reservation, states, StockCommitted, id_, now)
            return {name: [ReservationCommitted(id_, committed_at=now)], **stock_events}
        case ReleaseReservation(), Status.OPEN | Status.FIRM:
            stock_events = settle_lines(reservation, states, StockReleased, id_, now)
            return {name: [ReservationReleased(id_, command.reason, released_at=now)], **stock_events}
        case ExpireReservation(), Status.OPEN:
            if not expired:
                raise Rejected("RESERVATION_NOT_EXPIRED", reservation_id=id_, deadline=reservation.deadline)
            stock_events = settle_lines(reservation, states, StockReleased, id_, now)
            return {name: [ReservationExpired(id_, expired_at=now)], **stock_events}
        case ExpireReservation(), _:
            return {}
        case _, status if status is TARGET_STATUS[type(command)]:
            return {}
    raise Rejected(f"RESERVATION_ALREADY_{reservation.status.name}", reservation_id=id_)


TARGET_STATUS = {
    FirmReservation: Status.FIRM,
    ReleaseReservation: Status.RELEASED,
    CommitReservation: Status.COMMITTED,
}
"""The status that each command leads to. A command whose target status is reached already has no effect."""


def reserve(command: ReserveStock, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    """Return the events of a new reservation by stream.

    Raises:
        Rejected: the deadline is invalid, a line is repeated, or a stock has too few available pieces.
    """
    if not now < command.deadline <= now + MAX_DURATION:
        raise Rejected("RESERVATION_DEADLINE_INVALID", deadline=command.deadline, most=now + MAX_DURATION)
    name, *_ = states
    events: dict[str, Sequence[Any]] = {
        name: [ReservationMade(command.reservation_id, command.lines, command.deadline, made_at=now)]
    }
    for line, stock_name in zip(command.lines, _stock_streams(command.lines), strict=True):
        if stock_name in events:
            raise Rejected("RESERVATION_LINE_REPEATED", sku=line.sku, warehouse_id=line.warehouse_id)
        check_available(states[stock_name], line.sku, line.warehouse_id, line.quantity)
        events[stock_name] = reserve_line(states[stock_name], line, command.reservation_id, now)
    return events


def reserve_line(
    stock: Stock, line: ReservationLine, reservation_id: str, now: datetime
) -> Sequence[StockEvent]:
    reserved = StockReserved(
        stock.sku,
        stock.warehouse_id,
        reservation_id,
        line.quantity,
        stock.on_hand,
        stock.reserved + line.quantity,
        reserved_at=now,
    )
    return with_alert(stock, [reserved], now)


def settle_lines(
    reservation: Reservation,
    states: Mapping[str, Any],
    event_type: type[StockReleased] | type[StockCommitted],
    reservation_id: str,
    now: datetime,
) -> EventsByStream:
    """Return the stock events that end the reservation of every line.

    Args:
        reservation: the reservation before it ends.
        states: the states of all streams of the command.
        event_type: StockReleased leaves the pieces on hand, StockCommitted removes them.
        reservation_id: the reservation's id.
        now: the time of the events.
    """
    events = {}
    for line, name in zip(reservation.lines, _stock_streams(reservation.lines), strict=True):
        stock: Stock = states[name]
        on_hand = stock.on_hand - (line.quantity if event_type is StockCommitted else 0)
        fields = (stock.sku, stock.warehouse_id, reservation_id, line.quantity)
        settled = event_type(*fields, on_hand, stock.reserved - line.quantity, now)
        events[name] = with_alert(stock, [settled], now)
    return events


DECIDER = Decider(members(Command), (RESERVATION, STOCK), "reservation_id", streams, decide, related_streams)
