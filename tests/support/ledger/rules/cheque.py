"""The rules of cheques. Cashing one also changes the account that only the cheque's state names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from command_server.kernel.decider import Aggregate, Decider, NotFound, Rejected
from command_server.kernel.field_rules import check_fields
from tests.support.ledger.rules.account import ACCOUNT
from tests.support.ledger.rules.messages import (
    CashCheque,
    ChequeCashed,
    ChequeEndorsed,
    ChequeVoided,
    ChequeWritten,
    EndorseCheque,
    Paid,
    VoidCheque,
    WriteCheque,
)

Command = WriteCheque | EndorseCheque | CashCheque | VoidCheque
Event = ChequeWritten | ChequeEndorsed | ChequeCashed | ChequeVoided


class Status(StrEnum):
    NONE = "NONE"
    WRITTEN = "WRITTEN"
    ENDORSED = "ENDORSED"
    CASHED = "CASHED"
    VOIDED = "VOIDED"


@dataclass(frozen=True)
class Endorsement:
    endorser: str


@dataclass(frozen=True)
class Cheque:
    status: Status = Status.NONE
    account_id: str = ""
    amount: int = 0
    endorsements: tuple[Endorsement, ...] = ()


def evolve(cheque: Cheque, event: Event) -> Cheque:
    match event:
        case ChequeWritten():
            return Cheque(Status.WRITTEN, event.account_id, event.amount)
        case ChequeEndorsed():
            endorsements = (*cheque.endorsements, Endorsement(event.endorser))
            return replace(cheque, status=Status.ENDORSED, endorsements=endorsements)
        case ChequeCashed():
            return replace(cheque, status=Status.CASHED)
        case ChequeVoided():
            return replace(cheque, status=Status.VOIDED)


CHEQUE = Aggregate(
    "ledger.cheque",
    Cheque(),
    evolve,
    (ChequeWritten, ChequeEndorsed, ChequeCashed, ChequeVoided),
    owner="account_id",
)
MAX_ENDORSEMENTS = 1_000
"""A cheque's state and view hold them all."""
OPEN = (Status.WRITTEN, Status.ENDORSED)


def streams(command: Command) -> Sequence[str]:
    return (CHEQUE.stream(command.cheque_id),)


def find_drawn_account(command: Command, states: Mapping[str, Cheque]) -> Sequence[str]:
    (cheque,) = states.values()
    pays = isinstance(command, CashCheque) and cheque.status in OPEN
    return [ACCOUNT.stream(cheque.account_id)] if pays else []


def decide(command: Command, states: Mapping[str, Any], now: datetime) -> Mapping[str, Sequence[Any]]:
    check_fields(command)
    stream, *accounts = states
    cheque: Cheque = states[stream]
    match command:
        case WriteCheque():
            return {stream: _write(command, cheque, now)}
        case EndorseCheque() if cheque.status in OPEN:
            if len(cheque.endorsements) >= MAX_ENDORSEMENTS:
                raise Rejected("CHEQUE_FULL", most=MAX_ENDORSEMENTS)
            return {stream: [ChequeEndorsed(command.cheque_id, command.caller, now)]}
        case CashCheque() if accounts:
            paid = Paid(cheque.account_id, -cheque.amount)
            return {stream: [ChequeCashed(command.cheque_id, now)], accounts[0]: [paid]}
        case VoidCheque() if cheque.status in (*OPEN, Status.VOIDED):
            voided = ChequeVoided(command.cheque_id, command.reason, now)
            return {stream: [voided] if cheque.status in OPEN else []}
    if cheque.status is Status.NONE:
        raise NotFound("CHEQUE_NOT_FOUND", cheque_id=command.cheque_id)
    raise Rejected("CHEQUE_WORTHLESS", status=cheque.status)


def _write(command: WriteCheque, cheque: Cheque, now: datetime) -> Sequence[ChequeWritten]:
    if cheque.status is not Status.NONE:
        raise Rejected("CHEQUE_ALREADY_WRITTEN", status=cheque.status)
    values = (command.cheque_id, command.account_id, command.amount, command.caller)
    return [ChequeWritten(*values, now, command.currency_code)]


CHEQUES = Decider(
    (WriteCheque, EndorseCheque, CashCheque, VoidCheque),
    (CHEQUE, ACCOUNT),
    "cheque_id",
    streams,
    decide,
    find_drawn_account,
)
