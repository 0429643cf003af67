"""The fulfilment aggregate: the last record of a saga's progress.

The saga decides; here its records are kept in order, so that they have events, a view and watches. A record
has all that is known, so one that a later record has overtaken is not missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import Enum
from typing import Annotated

from command_server.kernel.decider import Aggregate, one_stream
from command_server.kernel.field_hints import FieldRule
from command_server.kernel.field_rules import Id, OptionalId, between, check_fields, length


class State(Enum):
    """States of a fulfilment, with the numbers of the proto."""

    UNSPECIFIED = 0
    PREPARING = 1
    IN_REVIEW = 2
    UNWINDING = 3
    CONFIRMED = 4
    SHIPPED = 5
    FULFILLED = 6
    TAKING_BACK = 7
    RETURNED = 8
    REJECTED = 9
    CANCELLED = 10
    BLOCKED = 11
    ABORTED = 12


RecordedState = Annotated[State, FieldRule(lambda state: state is not State.UNSPECIFIED, "must be set")]
Text = Annotated[str, length(0, 500)]


@dataclass(frozen=True, slots=True)
class RecordFulfilment:
    """Record the progress of a fulfilment."""

    order_id: Id
    number: Annotated[int, between(1, 10**18)]
    order_version: Annotated[int, between(1)]
    state: RecordedState
    waiting_for: Text
    rejection: Text
    suspicion: Text
    blocked_reason: Text
    reservation_id: OptionalId
    hold_id: OptionalId
    max_seconds: Annotated[int, between(0, 10**9)]
    customer_id: OptionalId = ""
    """Empty in records of earlier releases."""


@dataclass(frozen=True, slots=True)
class FulfilmentRecorded:
    """The progress of a fulfilment was recorded."""

    order_id: str
    number: int
    order_version: int
    state: State
    waiting_for: str
    rejection: str
    suspicion: str
    blocked_reason: str
    reservation_id: str
    hold_id: str
    max_seconds: int
    recorded_at: datetime
    customer_id: str = ""


@dataclass(frozen=True, slots=True)
class Fulfilment:
    """The last record of a fulfilment; number 0 before the first."""

    number: int = 0


def evolve(_: Fulfilment, event: FulfilmentRecorded) -> Fulfilment:
    return Fulfilment(event.number)


FULFILMENT = Aggregate("fulfilment.fulfilment", Fulfilment(), evolve, (FulfilmentRecorded,))


def decide(command: RecordFulfilment, fulfilment: Fulfilment, now: datetime) -> Sequence[FulfilmentRecorded]:
    check_fields(command)
    if command.number <= fulfilment.number:
        return []
    values = {field.name: getattr(command, field.name) for field in fields(command)}
    return [FulfilmentRecorded(**values, recorded_at=now)]


DECIDER = one_stream(FULFILMENT, RecordFulfilment, key="order_id", decide=decide)
