"""The hold aggregate: money of an account that is reserved for a later payment.

An open hold expires at its deadline; a firm one has no deadline. A hold ends when it is captured, so
that all or part of the money is paid out, or released, so that the money is available again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from command_server.contexts.banking.domain import account as rules
from command_server.contexts.banking.domain.account import ACCOUNT, NO_MONEY, Account
from command_server.contexts.banking.domain.messages import (
    CaptureHold,
    ExpireHold,
    FirmHold,
    HeldMoneyCaptured,
    HeldMoneyReleased,
    HoldCaptured,
    HoldExpired,
    HoldFirmed,
    HoldPlaced,
    HoldReleased,
    MoneyHeld,
    PlaceHold,
    ReleaseHold,
)
from command_server.kernel.decider import Aggregate, AlreadyExists, Decider, NotFound, Rejected, members
from command_server.kernel.field_rules import check_fields
from command_server.kernel.money import Money

MAX_DURATION = timedelta(days=7)
"""Maximum time from the placing of a hold to its deadline."""

Command = PlaceHold | FirmHold | CaptureHold | ReleaseHold | ExpireHold
Event = HoldPlaced | HoldFirmed | HoldCaptured | HoldReleased | HoldExpired
EventsByStream = Mapping[str, Sequence[Any]]


class Status(Enum):
    """Statuses of a hold; NONE before it is placed, RELEASED also after it expired."""

    NONE = "NONE"
    OPEN = "OPEN"
    FIRM = "FIRM"
    RELEASED = "RELEASED"
    CAPTURED = "CAPTURED"


@dataclass(frozen=True, slots=True)
class Hold:
    """The state of a hold, as far as the rules need it."""

    status: Status = Status.NONE
    account_id: str = ""
    amount: Money = NO_MONEY
    reference: str = ""
    deadline: datetime | None = None
    captured: Money | None = None

    def is_expired(self, now: datetime) -> bool:
        """Return whether the deadline has passed; a firm hold has none."""
        return self.status is Status.OPEN and self.deadline is not None and self.deadline <= now


def evolve(hold: Hold, event: Event) -> Hold:
    match event:
        case HoldPlaced():
            return Hold(Status.OPEN, event.account_id, event.amount, event.reference, event.deadline)
        case HoldFirmed():
            return replace(hold, status=Status.FIRM)
        case HoldCaptured():
            return replace(hold, status=Status.CAPTURED, captured=event.amount)
        case HoldReleased() | HoldExpired():
            return replace(hold, status=Status.RELEASED)


HOLD = Aggregate("banking.hold", Hold(), evolve, members(Event))


def streams(command: Command) -> Sequence[str]:
    """PlaceHold also changes the account named in the command."""
    name = HOLD.stream(command.hold_id)
    return (name, ACCOUNT.stream(command.account_id)) if isinstance(command, PlaceHold) else (name,)


def related_streams(command: Command, states: Mapping[str, Any]) -> Sequence[str]:
    """Commands that end a hold also change the held account, which only the hold's state names."""
    hold: Hold = states[HOLD.stream(command.hold_id)]
    ends = isinstance(command, CaptureHold | ReleaseHold | ExpireHold)
    active = hold.status in (Status.OPEN, Status.FIRM)
    return [ACCOUNT.stream(hold.account_id)] if ends and active else ()


def decide(command: Command, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    check_fields(command)
    id_ = command.hold_id
    name = HOLD.stream(id_)
    hold: Hold = states[name]
    expired = hold.is_expired(now)
    match command, hold.status:
        case PlaceHold(), Status.NONE:
            return place(command, states, now)
        case PlaceHold(), _:
            if replace(hold, status=Status.OPEN, captured=None) == _to_hold(command):
                return {}
            raise AlreadyExists("HOLD_EXISTS", hold_id=id_)
        case _, Status.NONE:
            raise NotFound("HOLD_NOT_FOUND", hold_id=id_)
        case FirmHold() | CaptureHold(), Status.OPEN if expired:
            raise Rejected("HOLD_EXPIRED", hold_id=id_, deadline=hold.deadline)
        case FirmHold(), Status.OPEN:
            return {name: [HoldFirmed(id_, firmed_at=now)]}
        case CaptureHold(), Status.OPEN | Status.FIRM:
            return capture(command, hold, states, now)
        case CaptureHold(_, amount), Status.CAPTURED if amount in (None, hold.captured):
            return {}
        case ReleaseHold(_, reason), Status.OPEN | Status.FIRM:
            return {name: [HoldReleased(id_, reason, released_at=now)], **release(id_, hold, states, now)}
        case ExpireHold(), Status.OPEN:
            if not expired:
                raise Rejected("HOLD_NOT_EXPIRED", hold_id=id_, deadline=hold.deadline)
            return {name: [HoldExpired(id_, expired_at=now)], **release(id_, hold, states, now)}
        case (ExpireHold(), _) | (FirmHold(), Status.FIRM) | (ReleaseHold(), Status.RELEASED):
            return {}
    raise Rejected(f"HOLD_ALREADY_{hold.status.name}", hold_id=id_)


def _to_hold(command: PlaceHold) -> Hold:
    return Hold(Status.OPEN, command.account_id, command.amount, command.reference, command.deadline)


def place(command: PlaceHold, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    """Return the events of a new hold by stream.

    Raises:
        Rejected: the deadline is invalid, or the account cannot pay the amount.
    """
    if not now < command.deadline <= now + MAX_DURATION:
        raise Rejected("HOLD_DEADLINE_INVALID", deadline=command.deadline, most=now + MAX_DURATION)
    name, account_name = states
    account: Account = states[account_name]
    id_, account_id, amount = command.hold_id, command.account_id, command.amount
    rules.check_can_pay(account, account_id, amount)
    held = MoneyHeld(account_id, id_, amount, account.balance, account.held + amount, held_at=now)
    placed = HoldPlaced(id_, account_id, amount, command.deadline, command.reference, placed_at=now)
    return {name: [placed], account_name: [held]}


def capture(command: CaptureHold, hold: Hold, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    """Return the events of a payment out of a hold by stream; the rest of the hold is released.

    A freeze of the account is not checked: it blocks new holds, but not the capture of earlier ones.
    """
    name, account_name = states
    account: Account = states[account_name]
    amount = command.amount or hold.amount
    rules.check_currency(account, amount)
    if hold.amount < amount:
        raise Rejected("HOLD_TOO_SMALL", hold_id=command.hold_id)
    rest, id_ = hold.amount - amount, command.hold_id
    balance, held = account.balance - amount, account.held - hold.amount
    paid = HeldMoneyCaptured(hold.account_id, id_, amount, rest, balance, held, captured_at=now)
    return {name: [HoldCaptured(id_, amount, rest, captured_at=now)], account_name: [paid]}


def release(hold_id: str, hold: Hold, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    """Return the account's event of a released or expired hold by stream."""
    account_name = ACCOUNT.stream(hold.account_id)
    account: Account = states[account_name]
    held = account.held - hold.amount
    released = HeldMoneyReleased(
        hold.account_id, hold_id, hold.amount, account.balance, held, released_at=now
    )
    return {account_name: [released]}


DECIDER = Decider(members(Command), (HOLD, ACCOUNT), "hold_id", streams, decide, related_streams)
