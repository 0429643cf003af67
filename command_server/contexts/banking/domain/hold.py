"""A hold's story: placed on an account, firm or expired, captured in whole or in part, or released."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from command_server.contexts.banking.domain import account as rules
from command_server.contexts.banking.domain.account import ACCOUNT, NOTHING, Account
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
from command_server.kernel.money import Money

LONGEST = timedelta(days=7)
"""How far ahead a deadline may lie."""

Command = PlaceHold | FirmHold | CaptureHold | ReleaseHold | ExpireHold
Event = HoldPlaced | HoldFirmed | HoldCaptured | HoldReleased | HoldExpired
Happened = Mapping[str, Sequence[Any]]


class Status(Enum):
    """Where a hold is in its life."""

    NONE = "NONE"
    OPEN = "OPEN"
    FIRM = "FIRM"
    RELEASED = "RELEASED"
    CAPTURED = "CAPTURED"


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold as its rules see it."""

    status: Status = Status.NONE
    account_id: str = ""
    amount: Money = NOTHING
    reference: str = ""
    deadline: datetime | None = None
    captured: Money | None = None

    def expired(self, now: datetime) -> bool:
        """Whether its deadline applies and has passed."""
        return self.status is Status.OPEN and self.deadline is not None and self.deadline <= now


def evolve(hold: Hold, event: Event) -> Hold:
    """Return the hold after an event."""
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
    """To place a hold is about its account,"""
    name = HOLD.stream(command.hold_id)
    return (name, ACCOUNT.stream(command.account_id)) if isinstance(command, PlaceHold) else (name,)


def related_streams(command: Command, states: Mapping[str, Any]) -> Sequence[str]:
    """and so is whatever ends one that stands."""
    hold: Hold = states[HOLD.stream(command.hold_id)]
    ends = isinstance(command, CaptureHold | ReleaseHold | ExpireHold)
    return [ACCOUNT.stream(hold.account_id)] if ends and hold.status in (Status.OPEN, Status.FIRM) else ()


def decide(command: Command, states: Mapping[str, Any], now: datetime) -> Happened:
    """Return what happens, or raise Rejected."""
    id_ = command.hold_id
    name, *others = states
    hold: Hold = states[name]
    expired = hold.expired(now)
    match command, hold.status:
        case PlaceHold(), Status.NONE:
            return place(command, states, now)
        case PlaceHold(), _:
            if replace(hold, status=Status.OPEN, captured=None) == _asked(command):
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
            back = let_go(id_, hold, states[others[0]], now)
            return {name: [HoldReleased(id_, reason, released_at=now)], others[0]: back}
        case ExpireHold(), Status.OPEN:
            if not expired:
                raise Rejected("HOLD_NOT_EXPIRED", hold_id=id_, deadline=hold.deadline)
            back = let_go(id_, hold, states[others[0]], now)
            return {name: [HoldExpired(id_, expired_at=now)], others[0]: back}
        case (ExpireHold(), _) | (FirmHold(), Status.FIRM) | (ReleaseHold(), Status.RELEASED):
            return {}
    raise Rejected(f"HOLD_ALREADY_{hold.status.name}", hold_id=id_)


def _asked(command: PlaceHold) -> Hold:
    return Hold(Status.OPEN, command.account_id, command.amount, command.reference, command.deadline)


def place(command: PlaceHold, states: Mapping[str, Any], now: datetime) -> Happened:
    """Hold money that the account has."""
    if not now < command.deadline <= now + LONGEST:
        raise Rejected("HOLD_DEADLINE_INVALID", deadline=command.deadline, most=now + LONGEST)
    name, account_name = states
    account: Account = states[account_name]
    id_, account_id, amount = command.hold_id, command.account_id, command.amount
    rules.check_gives(account, account_id, amount)
    held = MoneyHeld(account_id, id_, amount, account.balance, account.held + amount, held_at=now)
    placed = HoldPlaced(id_, account_id, amount, command.deadline, command.reference, placed_at=now)
    return {name: [placed], account_name: [held]}


def capture(command: CaptureHold, hold: Hold, states: Mapping[str, Any], now: datetime) -> Happened:
    """Pay out of what is held, and let the rest go; a hold outlives the freezing of its account."""
    name, account_name = states
    account: Account = states[account_name]
    amount = command.amount or hold.amount
    rules.check_currency(account, amount)
    if hold.amount < amount:
        raise Rejected("HOLD_TOO_SMALL", hold_id=command.hold_id)
    rest, id_ = hold.amount - amount, command.hold_id
    after, held = account.balance - amount, account.held - hold.amount
    paid = HeldMoneyCaptured(hold.account_id, id_, amount, rest, after, held, captured_at=now)
    return {name: [HoldCaptured(id_, amount, rest, captured_at=now)], account_name: [paid]}


def let_go(hold_id: str, hold: Hold, account: Account, now: datetime) -> Sequence[HeldMoneyReleased]:
    """Return that what was held is free again."""
    held = account.held - hold.amount
    return [HeldMoneyReleased(hold.account_id, hold_id, hold.amount, account.balance, held, released_at=now)]


DECIDER = Decider(members(Command), (HOLD, ACCOUNT), "hold_id", streams, decide, related_streams)
