"""The effects of purchases of tickets: money and seats agree.

They are taken from the events of bookings and holds. A buyer with tickets has paid their price, once.
Returned tickets are refunded; released seats cost nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diptych.banking.v1 import command_service_pb2 as banking_commands
from diptych.banking.v1.types_pb2 import Hold
from diptych.ticketing.v1 import events_pb2
from diptych.ticketing.v1.types_pb2 import Booking
from google.protobuf.message import DecodeError

from operations.verify.checks.saga_effects import EffectsCheck, fold_streams, read_accepted_steps
from operations.verify.model import Aggregate, Problem, SagaSpec
from operations.verify.sources import PostgresReader

SAGA = "purchase.purchase"
NEEDED_STREAMS = frozenset({"ticketing.booking", "banking.hold"})
HOLD = "/diptych.banking.v1.CommandService/PlaceHold"
REFUND = "/diptych.banking.v1.CommandService/PayRefund"
EFFECTS: Mapping[str, tuple[str, str, int]] = {
    "SOLD": ("SOLD", "CAPTURED", 0),
    "RETURNED": ("RETURNED", "CAPTURED", 1),
    "FAILED": ("RELEASED", "RELEASED", 0),
}
"""Saga status to the states of its booking and of its hold, and the number of refunds."""


async def _check_page(
    postgres: PostgresReader, aggregates: Mapping[str, Aggregate], purchases: Sequence[Any]
) -> list[Problem]:
    steps = await read_accepted_steps(postgres, SAGA, purchases)
    holds, refunds, problems = dict[str, list[str]](), dict[str, list[Any]](), list[Problem]()
    for row in purchases:
        try:
            holds[row.id], refunds[row.id] = read_payments(steps[row.id])
        except DecodeError:
            problems.append(Problem("sagas", f"saga {SAGA} {row.id}", "the request of a step cannot be read"))
    names = [f"ticketing.booking.{id_}" for id_ in holds]
    names += [f"banking.hold.{hold}" for own in holds.values() for hold in own]
    views = await fold_streams(postgres, aggregates, names)
    for row in purchases:
        booking = views.get(f"ticketing.booking.{row.id}")
        if row.id not in holds or booking is None:
            continue  # the checks of its stream report that
        own = [views[name] for hold in holds[row.id] if (name := f"banking.hold.{hold}") in views]
        for text in compare(row.status, booking, own, refunds[row.id]):
            problems.append(Problem("sagas", f"saga {SAGA} {row.id}", text))
    return problems


def read_payments(steps: Sequence[Any]) -> tuple[list[str], list[Any]]:
    """Return the ids of a purchase's holds, and the amounts of its refunds, from its accepted requests.

    Raises:
        DecodeError: a request cannot be read.
    """
    holds = [
        banking_commands.PlaceHoldRequest.FromString(row.request).hold_id
        for row in steps
        if row.method == HOLD
    ]
    refunds = [
        banking_commands.PayRefundRequest.FromString(row.request).amount
        for row in steps
        if row.method == REFUND
    ]
    return holds, refunds


def compare(status: str, booking: Any, holds: Sequence[Any], refunds: Sequence[Any]) -> Iterator[str]:
    """Yield what is wrong with a purchase that has ended in this status."""
    booking_state, hold_state, refund_count = EFFECTS[status]
    actual = Booking.State.Name(booking.state).removeprefix("STATE_")
    if actual != booking_state:
        yield f"is {status}, but its booking is {actual}"
    has_price = bool(booking.total.units or booking.total.nanos)
    if has_price and status != "FAILED" and len(holds) != 1:
        yield f"is {status}, but has {len(holds)} holds"
    for hold in holds:
        state = Hold.State.Name(hold.state).removeprefix("STATE_")
        if state != hold_state:
            yield f"is {status}, but its hold is {state}"
        elif state == "CAPTURED" and hold.captured != booking.total:
            yield "the captured amount is not the price of its seats"
    if list(refunds) != [booking.total] * (refund_count if has_price else 0):
        yield f"is {status}, but made {len(refunds)} refunds"


def get_booking_id(message: Any) -> str:
    bought = (events_pb2.PurchaseRequested, events_pb2.TicketsIssued, events_pb2.TicketsReturned)
    return str(message.booking_id) if isinstance(message, bought) else ""


AGGREGATES: Sequence[Aggregate] = ()
CHECK = EffectsCheck(SAGA, EFFECTS, NEEDED_STREAMS, _check_page)
SAGAS = (SagaSpec(SAGA, "", CHECK.run, keys={"ticketing.booking": get_booking_id}),)
