"""The transfer aggregate: money moves between two accounts.

One person makes as many as `four_eyes` allows, immediately. Any other is requested by one person, and
approved or declined by another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any

from command_server.contexts.banking.domain import account as rules
from command_server.contexts.banking.domain.account import ACCOUNT, NO_MONEY, Account
from command_server.contexts.banking.domain.case import CASE
from command_server.contexts.banking.domain.compliance import case_streams, check_outgoing_name
from command_server.contexts.banking.domain.four_eyes import (
    PAYER,
    SINGLE_PERSON_LIMIT,
    count_payment,
    find_excess,
    payer_streams,
)
from command_server.contexts.banking.domain.listed_name import LISTED_NAME
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
    is_same_reference,
)
from command_server.kernel.decider import Aggregate, AlreadyExists, Decider, NotFound, Rejected, members
from command_server.kernel.field_rules import check_fields
from command_server.kernel.money import Money
from command_server.kernel.persons import list_persons, share_person

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
    requesters: tuple[str, ...] = ()
    owner_id: str = ""
    """Of the account that pays; empty for transfers of earlier releases."""

    @property
    def account_streams(self) -> list[str]:
        """The streams of the sending and the receiving account."""
        return [ACCOUNT.stream(self.from_account_id), ACCOUNT.stream(self.to_account_id)]


def evolve(transfer: TransferState, event: Event) -> TransferState:
    match event:
        case TransferMade():
            return replace(_to_state(event), status=Status.MADE, owner_id=event.owner_id)
        case TransferRequested(requested_by=requested_by):
            return replace(
                _to_state(event),
                status=Status.REQUESTED,
                requested_by=requested_by,
                requesters=event.requesters or (requested_by,),
                owner_id=event.owner_id,
            )
        case TransferApproved():
            return replace(transfer, status=Status.MADE)
        case TransferDeclined():
            return replace(transfer, status=Status.DECLINED)


def _to_state(source: Transfer | RequestTransfer | TransferMade | TransferRequested) -> TransferState:
    return TransferState(
        Status.NONE, source.from_account_id, source.to_account_id, source.amount, source.reference
    )


TRANSFER = Aggregate(
    "banking.transfer",
    TransferState(),
    evolve,
    members(Event),
    subjects=lambda transfer, _: (transfer.owner_id,),
    owner="owner_id",
)


def streams(command: Command) -> Sequence[str]:
    """Transfer also changes both accounts named in the command; RequestTransfer reads the one that pays."""
    name = TRANSFER.stream(command.transfer_id)
    match command:
        case Transfer():
            cases = case_streams(command, command.counterparty_name)
            return (name, *_to_state(command).account_streams, *payer_streams(command), *cases)
        case RequestTransfer():
            cases = case_streams(command, command.counterparty_name)
            return (name, ACCOUNT.stream(command.from_account_id), *cases)
    return (name,)


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
            return transfer_alone(command, states, now)
        case RequestTransfer(), Status.NONE:
            return {name: [request(command, states, now)]}
        case Transfer() | RequestTransfer(), _:
            if is_same(command, transfer):
                return {}
            raise AlreadyExists("TRANSFER_EXISTS", transfer_id=id_)
        case _, Status.NONE:
            raise NotFound("TRANSFER_NOT_FOUND", transfer_id=id_)
        case ApproveTransfer(_, caller, persons), Status.REQUESTED:
            if share_person(caller, persons, transfer.requesters):
                raise Rejected("TRANSFER_SAME_CALLER", transfer_id=id_)
            approved = TransferApproved(id_, caller, approved_at=now)
            return {name: [approved], **move_money(id_, transfer, states, now, approved=True)}
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
    asked = _to_state(command)
    same_reference = is_same_reference(asked.reference, transfer.reference)
    same_payment = (asked.account_streams, asked.amount) == (transfer.account_streams, transfer.amount)
    return same_payment and same_reference and isinstance(command, RequestTransfer) == was_requested


def check_different_accounts(transfer: TransferState) -> None:
    """Raise Rejected if the transfer is from an account to itself."""
    if transfer.from_account_id == transfer.to_account_id:
        raise Rejected("TRANSFER_ACCOUNT_SAME", account_id=transfer.to_account_id)


def transfer_alone(command: Transfer, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    """Return the events of a transfer without an approval by stream.

    Raises:
        NotFound: an account does not exist.
        Rejected: the money cannot move, or it is more than one person may pay.
    """
    transfer = _to_state(command)
    moved = move_money(command.transfer_id, transfer, states, now)
    sender: Account = states[transfer.account_streams[0]]
    check_outgoing_name(command, sender, command.from_account_id, command.counterparty_name, states, now)
    if counted := find_excess(command, sender, states, now):
        raise Rejected("TRANSFER_NEEDS_APPROVAL", above=SINGLE_PERSON_LIMIT, counted=counted)
    made = TransferMade(*_to_fields(command), made_at=now, owner_id=sender.owner_id)
    return {TRANSFER.stream(command.transfer_id): [made], **moved, **count_payment(command, now)}


def request(command: RequestTransfer, states: Mapping[str, Any], now: datetime) -> TransferRequested:
    """Return the event of a request; funds are checked when it is approved.

    Raises:
        NotFound: the account that pays does not exist.
        Rejected: the accounts are the same, or the one that pays is closed or in another currency.
    """
    check_different_accounts(_to_state(command))
    sender: Account = states[ACCOUNT.stream(command.from_account_id)]
    rules.check_open(sender, command.from_account_id)
    rules.check_currency(sender, command.amount)
    check_outgoing_name(command, sender, command.from_account_id, command.counterparty_name, states, now)
    requesters = list_persons(command.caller, command.persons)
    fields = _to_fields(command)
    return TransferRequested(*fields, command.caller, now, sender.owner_id, requesters)


def move_money(
    transfer_id: str,
    transfer: TransferState,
    states: Mapping[str, Any],
    now: datetime,
    *,
    approved: bool = False,
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
    held, owner_id = sender.held, sender.owner_id
    sent = TransferSent(
        sender_id, transfer_id, recipient_id, amount, reference, balance, held, now, approved, owner_id
    )
    balance, held, owner_id = recipient.balance + amount, recipient.held, recipient.owner_id
    received = TransferReceived(
        recipient_id, transfer_id, sender_id, amount, reference, balance, held, now, owner_id
    )
    return {sender_name: [sent], recipient_name: [received]}


def owned_streams(command: Transfer | RequestTransfer) -> Sequence[str]:
    """The transfer, if there is one, and the sending account must be the caller's."""
    return TRANSFER.stream(command.transfer_id), ACCOUNT.stream(command.from_account_id)


DECIDER = Decider(
    members(Command),
    (TRANSFER, ACCOUNT, PAYER, CASE, LISTED_NAME),
    "transfer_id",
    streams,
    decide,
    related_streams,
    owned_streams=owned_streams,
)
