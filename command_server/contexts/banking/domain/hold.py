"""The hold aggregate: money of an account that is reserved for a later payment.

An open hold expires at its deadline; a firm one has no deadline. A hold ends when it is captured, so
that all or part of the money is paid out, or released, so that the money is available again.

A hold is for what a customer orders, who is the account's owner or has a mandate. The mandate counts it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from command_server.contexts.banking.domain import account as rules
from command_server.contexts.banking.domain.account import ACCOUNT, NO_MONEY, Account
from command_server.contexts.banking.domain.mandate import (
    MANDATE,
    check_covers,
    free,
    make_mandate_id,
    use,
)
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
    is_same_reference,
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
    owner_id: str = ""
    """Of the account; empty for holds of earlier releases, as the customer."""
    customer_id: str = ""
    mandate_id: str = ""
    """The mandate that counts it; empty if the customer is the owner."""

    def is_expired(self, now: datetime) -> bool:
        """Return whether the deadline has passed; a firm hold has none."""
        return self.status is Status.OPEN and self.deadline is not None and self.deadline <= now


def evolve(hold: Hold, event: Event) -> Hold:
    match event:
        case HoldPlaced():
            return Hold(
                Status.OPEN,
                event.account_id,
                event.amount,
                event.reference,
                event.deadline,
                owner_id=event.owner_id,
                customer_id=event.customer_id,
                mandate_id=event.mandate_id,
            )
        case HoldFirmed():
            return replace(hold, status=Status.FIRM)
        case HoldCaptured():
            return replace(hold, status=Status.CAPTURED, captured=event.amount)
        case HoldReleased() | HoldExpired():
            return replace(hold, status=Status.RELEASED)


HOLD = Aggregate(
    "banking.hold",
    Hold(),
    evolve,
    members(Event),
    subjects=lambda hold, _: (hold.owner_id,),
    owner="owner_id",
)


def streams(command: Command) -> Sequence[str]:
    """PlaceHold also changes the account named in the command."""
    name = HOLD.stream(command.hold_id)
    return (name, ACCOUNT.stream(command.account_id)) if isinstance(command, PlaceHold) else (name,)


def related_streams(command: Command, states: Mapping[str, Any]) -> Sequence[str]:
    """Commands that end a hold also change its account and its mandate, which only the hold's state names.

    PlaceHold also changes the customer's mandate, if the account is not the customer's own.
    """
    hold: Hold = states[HOLD.stream(command.hold_id)]
    if isinstance(command, PlaceHold):
        account: Account = states[ACCOUNT.stream(command.account_id)]
        needs_mandate = hold.status is Status.NONE and account.owner_id not in ("", command.customer_id)
        mandate_id = make_mandate_id(command.account_id, command.customer_id)
        return [MANDATE.stream(mandate_id)] if needs_mandate else ()
    ends = isinstance(command, CaptureHold | ReleaseHold | ExpireHold)
    if not ends or hold.status not in (Status.OPEN, Status.FIRM):
        return ()
    mandates = [MANDATE.stream(hold.mandate_id)] if hold.mandate_id else []
    return [ACCOUNT.stream(hold.account_id), *mandates]


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
            if is_same(command, hold):
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


def is_same(command: PlaceHold, hold: Hold) -> bool:
    """Return whether a command repeats the one that placed the hold."""
    one = (command.account_id, command.amount, command.deadline)
    other = (hold.account_id, hold.amount, hold.deadline)
    same_reference = is_same_reference(command.reference, hold.reference)
    return one == other and same_reference and hold.customer_id in ("", command.customer_id)


def place(command: PlaceHold, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    """Return the events of a new hold by stream.

    Raises:
        Rejected: the deadline is invalid, the account cannot pay the amount, or not for this customer.
    """
    if not now < command.deadline <= now + MAX_DURATION:
        raise Rejected("HOLD_DEADLINE_INVALID", deadline=command.deadline, most=now + MAX_DURATION)
    id_, account_id, amount = command.hold_id, command.account_id, command.amount
    name, account_name = streams(command)
    account: Account = states[account_name]
    mandate_id = find_mandate(command, account, states, now)
    rules.check_can_pay(account, account_id, amount)
    held = MoneyHeld(account_id, id_, amount, account.balance, account.held + amount, held_at=now)
    people = account.owner_id, command.customer_id, mandate_id
    placed = HoldPlaced(id_, account_id, amount, command.deadline, command.reference, now, *people)
    return {name: [placed], account_name: [held], **use(mandate_id, id_, amount, states, now)}


def find_mandate(command: PlaceHold, account: Account, states: Mapping[str, Any], now: datetime) -> str:
    """Return the id of the mandate under which a customer orders; empty if they own the account.

    Raises:
        NotFound: the account does not exist.
        Rejected: it is closed or in another currency, or no mandate covers the order.
    """
    account_id, customer_id = command.account_id, command.customer_id
    rules.check_open(account, account_id)
    rules.check_currency(account, command.amount)
    if account.owner_id == customer_id:
        return ""
    mandate_id = make_mandate_id(account_id, customer_id)
    check_covers(states[MANDATE.stream(mandate_id)], account_id, customer_id, command.amount, now)
    return mandate_id


def capture(command: CaptureHold, hold: Hold, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    """Return the events of a payment out of a hold by stream; the rest of the hold is released.

    A freeze of the account is not checked: it blocks new holds, but not the capture of earlier ones.
    """
    name, account_name = HOLD.stream(command.hold_id), ACCOUNT.stream(hold.account_id)
    account: Account = states[account_name]
    amount = command.amount or hold.amount
    rules.check_currency(account, amount)
    if hold.amount < amount:
        raise Rejected("HOLD_TOO_SMALL", hold_id=command.hold_id)
    rest, id_ = hold.amount - amount, command.hold_id
    balance, held = account.balance - amount, account.held - hold.amount
    paid = HeldMoneyCaptured(hold.account_id, id_, amount, rest, balance, held, captured_at=now)
    captured = HoldCaptured(id_, amount, rest, captured_at=now)
    return {name: [captured], account_name: [paid], **free(hold.mandate_id, id_, rest, states, now)}


def release(hold_id: str, hold: Hold, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    """Return the events of a released or expired hold's account and mandate by stream."""
    account_name = ACCOUNT.stream(hold.account_id)
    account: Account = states[account_name]
    held = account.held - hold.amount
    released = HeldMoneyReleased(
        hold.account_id, hold_id, hold.amount, account.balance, held, released_at=now
    )
    return {account_name: [released], **free(hold.mandate_id, hold_id, hold.amount, states, now)}


DECIDER = Decider(members(Command), (HOLD, ACCOUNT, MANDATE), "hold_id", streams, decide, related_streams)
