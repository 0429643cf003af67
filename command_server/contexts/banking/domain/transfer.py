"""A transfer's story: made at once, or asked for by one and approved or declined by another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any

from command_server.contexts.banking.domain import account as rules
from command_server.contexts.banking.domain.account import ACCOUNT, NOTHING, Account
from command_server.contexts.banking.domain.messages import (
    ApproveTransfer,
    DeclineTransfer,
    RequestTransfer,
    Transfer,
    TransferApproved,
    TransferDeclined,
    TransferMade,
    TransferReceived,
    TransferRequested,
    TransferSent,
)
from command_server.kernel.decider import Aggregate, AlreadyExists, Decider, NotFound, Rejected, members
from command_server.kernel.money import Money

ALONE = 10_000
"""Whole units up to which one caller alone may transfer."""

Command = Transfer | RequestTransfer | ApproveTransfer | DeclineTransfer
Event = TransferMade | TransferRequested | TransferApproved | TransferDeclined
Happened = Mapping[str, Sequence[Any]]


class Status(Enum):
    """Where a transfer is in its life."""

    NONE = "NONE"
    REQUESTED = "REQUESTED"
    MADE = "MADE"
    DECLINED = "DECLINED"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be transferred, as its rules see it."""

    status: Status = Status.NONE
    from_account_id: str = ""
    to_account_id: str = ""
    amount: Money = NOTHING
    reference: str = ""
    requested_by: str = ""

    @property
    def accounts(self) -> list[str]:
        """The streams of the two accounts."""
        return [ACCOUNT.stream(self.from_account_id), ACCOUNT.stream(self.to_account_id)]


def evolve(order: Order, event: Event) -> Order:
    """Return the transfer after an event."""
    match event:
        case TransferMade():
            return replace(_order(event), status=Status.MADE)
        case TransferRequested(requested_by=requested_by):
            return replace(_order(event), status=Status.REQUESTED, requested_by=requested_by)
        case TransferApproved():
            return replace(order, status=Status.MADE)
        case TransferDeclined():
            return replace(order, status=Status.DECLINED)


def _order(of: Transfer | RequestTransfer | TransferMade | TransferRequested) -> Order:
    return Order(Status.NONE, of.from_account_id, of.to_account_id, of.amount, of.reference)


TRANSFER = Aggregate("banking.transfer", Order(), evolve, members(Event))


def streams(command: Command) -> Sequence[str]:
    """To transfer is about both accounts,"""
    name = TRANSFER.stream(command.transfer_id)
    return (name, *_order(command).accounts) if isinstance(command, Transfer) else (name,)


def related_streams(command: Command, states: Mapping[str, Any]) -> Sequence[str]:
    """and so is to approve a transfer that was asked for."""
    order: Order = states[TRANSFER.stream(command.transfer_id)]
    waits = isinstance(command, ApproveTransfer) and order.status is Status.REQUESTED
    return order.accounts if waits else ()


def decide(command: Command, states: Mapping[str, Any], now: datetime) -> Happened:
    """Return what happens, or raise Rejected."""
    id_ = command.transfer_id
    name = TRANSFER.stream(id_)
    order: Order = states[name]
    match command, order.status:
        case Transfer(), Status.NONE:
            if Money(command.amount.currency_code, ALONE) < command.amount:
                raise Rejected("TRANSFER_NEEDS_APPROVAL", above=ALONE)
            made = TransferMade(*_facts(command), made_at=now)
            return {name: [made], **move(id_, _order(command), states, now)}
        case RequestTransfer(caller=caller), Status.NONE:
            check_apart(_order(command))
            return {name: [TransferRequested(*_facts(command), caller, requested_at=now)]}
        case Transfer() | RequestTransfer(), _:
            if replace(order, status=Status.NONE, requested_by="") == _order(command) and (
                isinstance(command, RequestTransfer) == bool(order.requested_by)
            ):
                return {}
            raise AlreadyExists("TRANSFER_EXISTS", transfer_id=id_)
        case _, Status.NONE:
            raise NotFound("TRANSFER_NOT_FOUND", transfer_id=id_)
        case ApproveTransfer(_, caller), Status.REQUESTED:
            if caller == order.requested_by:
                raise Rejected("TRANSFER_SAME_CALLER", transfer_id=id_)
            approved = TransferApproved(id_, caller, approved_at=now)
            return {name: [approved], **move(id_, order, states, now)}
        case DeclineTransfer(_, reason, caller), Status.REQUESTED:
            return {name: [TransferDeclined(id_, reason, caller, declined_at=now)]}
        case (ApproveTransfer(), Status.MADE) | (DeclineTransfer(), Status.DECLINED):
            return {}
    raise Rejected(f"TRANSFER_ALREADY_{order.status.name}", transfer_id=id_)


def _facts(command: Transfer | RequestTransfer) -> tuple[str, str, str, Money, str]:
    ends = (command.from_account_id, command.to_account_id)
    return command.transfer_id, *ends, command.amount, command.reference


def check_apart(order: Order) -> None:
    """Refuse a transfer from an account to itself."""
    if order.from_account_id == order.to_account_id:
        raise Rejected("TRANSFER_ACCOUNT_SAME", account_id=order.to_account_id)


def move(transfer_id: str, order: Order, states: Mapping[str, Any], now: datetime) -> Happened:
    """Take from one account and give to the other, where both may."""
    check_apart(order)
    here, there = order.accounts
    giver: Account = states[here]
    taker: Account = states[there]
    amount, reference = order.amount, order.reference
    rules.check_gives(giver, order.from_account_id, amount)
    rules.check_day(giver, amount, now)
    rules.check_takes(taker, order.to_account_id, amount)
    facts = (transfer_id, order.to_account_id, amount, reference)
    sent = TransferSent(order.from_account_id, *facts, giver.balance - amount, giver.held, sent_at=now)
    facts = (transfer_id, order.from_account_id, amount, reference)
    after = taker.balance + amount
    received = TransferReceived(order.to_account_id, *facts, after, taker.held, received_at=now)
    return {here: [sent], there: [received]}


DECIDER = Decider(members(Command), (TRANSFER, ACCOUNT), "transfer_id", streams, decide, related_streams)
