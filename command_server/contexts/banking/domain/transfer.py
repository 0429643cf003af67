"""The transfer aggregate: money moves between two accounts.

A transfer up to APPROVAL_THRESHOLD is made immediately. A larger one is requested by one caller, and approved
or declined by another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any

from command_server.contexts.banking.domain import account as rules
from command_server.contexts.banking.domain.account import ACCOUNT, NO_MONEY, Account
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
from command_server.kernel.field_rules import check_fields
from command_server.kernel.money import Money

APPROVAL_THRESHOLD = 10_000
"""Largest amount, in whole units of any currency, that needs no approval by a second caller."""

Command = Transfer | RequestTransfer | ApproveTransfer | DeclineTransfer
Event = TransferMade | TransferRequested | TransferApproved | TransferDeclined
EventsByStream = Mapping[str, Sequence[Any]]


class Status(Enum):
    """Statuses of a transfer; NONE before it is made or requested."""

    NONE = "NONE"
    REQUESTED = "REQUESTED"
    MADE = "MADE"
    DECLINED = "DECLINED"


@dataclass(frozen=True, slots=True)
class TransferState:
    """The state of a transfer, as far as the rules need it."""

    status: Status = Status.NONE
    from_account_id: str = ""
    to_account_id: str = ""
    amount: Money = NO_MONEY
    reference: str = ""
    requested_by: str = ""

    @property
    def account_streams(self) -> list[str]:
        """The streams of the sending and the receiving account."""
        return [ACCOUNT.stream(self.from_account_id), ACCOUNT.stream(self.to_account_id)]


def evolve(transfer: TransferState, event: Event) -> TransferState:
    match event:
        case TransferMade():
            return replace(_to_state(event), status=Status.MADE)
        case TransferRequested(requested_by=requested_by):
            return replace(_to_state(event), status=Status.REQUESTED, requested_by=requested_by)
        case TransferApproved():
            return replace(transfer, status=Status.MADE)
        case TransferDeclined():
            return replace(transfer, status=Status.DECLINED)


def _to_state(source: Transfer | RequestTransfer | TransferMade | TransferRequested) -> TransferState:
    return TransferState(
        Status.NONE, source.from_account_id, source.to_account_id, source.amount, source.reference
    )


TRANSFER = Aggregate("banking.transfer", TransferState(), evolve, members(Event))


def streams(command: Command) -> Sequence[str]:
    """Transfer also changes both accounts named in the command."""
    name = TRANSFER.stream(command.transfer_id)
    return (name, *_to_state(command).account_streams) if isinstance(command, Transfer) else (name,)


def related_streams(command: Command, states: Mapping[str, Any]) -> Sequence[str]:
    """ApproveTransfer also changes both accounts, which only the transfer's state names."""
    transfer: TransferState = states[TRANSFER.stream(command.transfer_id)]
    moves_money = isinstance(command, ApproveTransfer) and transfer.status is Status.REQUESTED
    return transfer.account_streams if moves_money else ()


def decide(command: Command, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    check_fields(command)
    id_ = command.transfer_id
    name = TRANSFER.stream(id_)
    transfer: TransferState = states[name]
    match command, transfer.status:
        case Transfer(), Status.NONE:
            if Money(command.amount.currency_code, APPROVAL_THRESHOLD) < command.amount:
                raise Rejected("TRANSFER_NEEDS_APPROVAL", above=APPROVAL_THRESHOLD)
            made = TransferMade(*_to_fields(command), made_at=now)
            return {name: [made], **move_money(id_, _to_state(command), states, now)}
        case RequestTransfer(caller=caller), Status.NONE:
            check_different_accounts(_to_state(command))
            return {name: [TransferRequested(*_to_fields(command), caller, requested_at=now)]}
        case Transfer() | RequestTransfer(), _:
            if is_same(command, transfer):
                return {}
            raise AlreadyExists("TRANSFER_EXISTS", transfer_id=id_)
        case _, Status.NONE:
            raise NotFound("TRANSFER_NOT_FOUND", transfer_id=id_)
        case ApproveTransfer(_, caller), Status.REQUESTED:
            if caller == transfer.requested_by:
                raise Rejected("TRANSFER_SAME_CALLER", transfer_id=id_)
            approved = TransferApproved(id_, caller, approved_at=now)
            return {name: [approved], **move_money(id_, transfer, states, now)}
        case DeclineTransfer(_, reason, caller), Status.REQUESTED:
            return {name: [TransferDeclined(id_, reason, caller, declined_at=now)]}
        case (ApproveTransfer(), Status.MADE) | (DeclineTransfer(), Status.DECLINED):
            return {}
    raise Rejected(f"TRANSFER_ALREADY_{transfer.status.name}", transfer_id=id_)


def _to_fields(command: Transfer | RequestTransfer) -> tuple[str, str, str, Money, str]:
    account_ids = (command.from_account_id, command.to_account_id)
    return command.transfer_id, *account_ids, command.amount, command.reference


def is_same(command: Transfer | RequestTransfer, transfer: TransferState) -> bool:
    """Return whether a command repeats the one that made or requested the transfer."""
    was_requested = bool(transfer.requested_by)
    original = replace(transfer, status=Status.NONE, requested_by="")
    return original == _to_state(command) and isinstance(command, RequestTransfer) == was_requested


def check_different_accounts(transfer: TransferState) -> None:
    """Raise Rejected if the transfer is from an account to itself."""
    if transfer.from_account_id == transfer.to_account_id:
        raise Rejected("TRANSFER_ACCOUNT_SAME", account_id=transfer.to_account_id)


def move_money(
    transfer_id: str, transfer: TransferState, states: Mapping[str, Any], now: datetime
) -> EventsByStream:
    """Return the events of both accounts by stream.

    Raises:
        NotFound: an account does not exist.
        Rejected: the accounts are the same, the sender cannot pay, or the recipient cannot receive.
    """
    check_different_accounts(transfer)
    sender_name, recipient_name = transfer.account_streams
    sender: Account = states[sender_name]
    recipient: Account = states[recipient_name]
    sender_id, recipient_id = transfer.from_account_id, transfer.to_account_id
    amount, reference = transfer.amount, transfer.reference
    rules.check_can_pay(sender, sender_id, amount)
    rules.check_daily_limit(sender, amount, now)
    rules.check_can_receive(recipient, recipient_id, amount)
    balance = sender.balance - amount
    sent = TransferSent(
        sender_id, transfer_id, recipient_id, amount, reference, balance, sender.held, sent_at=now
    )
    balance = recipient.balance + amount
    received = TransferReceived(
        recipient_id, transfer_id, sender_id, amount, reference, balance, recipient.held, received_at=now
    )
    return {sender_name: [sent], recipient_name: [received]}


DECIDER = Decider(members(Command), (TRANSFER, ACCOUNT), "transfer_id", streams, decide, related_streams)
