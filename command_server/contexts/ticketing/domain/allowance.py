"""The allowance aggregate: what one buyer holds and has of one show, for the limits of both."""

from dataclasses import dataclass
from uuid import UUID, uuid5

from command_server.contexts.ticketing.domain.messages import AllowanceChanged
from command_server.kernel.decider import Aggregate, Rejected

ALLOWANCE_IDS = UUID("0d7a6a1f-0a8e-5a0b-9f33-6b8d1c5c2e51")
"""UUID namespace of allowance ids, which are derived from show and buyer."""
MAX_OPEN_HOLDS = 2
"""Maximum number of a buyer's bookings of a show that are held or being paid for."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """The state of an allowance."""

    open_holds: int = 0
    seats: int = 0
    """The seats that the buyer holds or has."""


def check(allowance: Allowance, count: int, seats_per_buyer: int) -> None:
    """Raise Rejected if a buyer may not hold this number of seats more."""
    if allowance.open_holds >= MAX_OPEN_HOLDS:
        raise Rejected("HOLDS_TOO_MANY", most=MAX_OPEN_HOLDS)
    if allowance.seats + count > seats_per_buyer:
        raise Rejected("SEATS_TOO_MANY", most=seats_per_buyer, has=allowance.seats)


def evolve(_: Allowance, event: AllowanceChanged) -> Allowance:
    return Allowance(event.open_holds, event.seats)


ALLOWANCE = Aggregate("ticketing.allowance", Allowance(), evolve, (AllowanceChanged,))


def make_allowance_id(show_id: str, buyer_id: str) -> str:
    return str(uuid5(ALLOWANCE_IDS, f"{show_id}\n{buyer_id}"))


def allowance_stream(show_id: str, buyer_id: str) -> str:
    return ALLOWANCE.stream(make_allowance_id(show_id, buyer_id))
