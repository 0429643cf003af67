"""The ledger, a context for the kernel's tests.

A transfer changes two streams; cashing a cheque changes a related stream; the amount POISON raises an error.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from grpc_tools import protoc

from command_server.kernel.context import Context
from command_server.kernel.decider import Aggregate, Decider, Rejected
from contracts.event_types import EventTypes

HERE = Path(__file__).parent
POISON = 666
"""The amount for which `decide` raises RuntimeError."""


def _compile_protos() -> Any:
    target = tempfile.mkdtemp(prefix="diptych-ledger-")
    protos = HERE.parents[2] / "protos"
    builtin = Path(protoc.__file__).parent / "_proto"
    arguments = [
        "protoc",
        f"-I{HERE}",
        f"-I{protos}",
        f"-I{builtin}",
        f"--python_out={target}",
        "ledger.proto",
    ]
    assert protoc.main(arguments) == 0
    sys.path.append(target)
    return import_module("ledger_pb2")


ledger_pb2 = _compile_protos()


@dataclass(frozen=True)
class Deposit:
    account_id: str
    amount: int


@dataclass(frozen=True)
class Transfer:
    account_id: str
    payee_id: str
    amount: int


@dataclass(frozen=True)
class Paid:
    account_id: str
    amount: int


@dataclass(frozen=True)
class Account:
    balance: int = 0


def evolve(account: Account, event: Paid) -> Account:
    return Account(account.balance + event.amount)


ACCOUNT = Aggregate("ledger.account", Account(), evolve, (Paid,))


def streams(command: Deposit | Transfer) -> Sequence[str]:
    match command:
        case Deposit():
            return (ACCOUNT.stream(command.account_id),)
        case Transfer():
            return (ACCOUNT.stream(command.account_id), ACCOUNT.stream(command.payee_id))


def decide(
    command: Deposit | Transfer, states: Mapping[str, Account], now: datetime
) -> Mapping[str, Sequence[Paid]]:
    if command.amount == POISON:
        raise RuntimeError("the ledger's code is broken")
    paid = Paid(command.account_id, command.amount)
    match command, streams(command):
        case Deposit(), (account,):
            return {account: [paid]}
        case Transfer(payee_id=payee), (payer, receiver):
            if states[payer].balance < command.amount:
                raise Rejected("LEDGER_TOO_POOR", balance=states[payer].balance)
            return {
                payer: [Paid(command.account_id, -command.amount)],
                receiver: [Paid(payee, command.amount)],
            }
    raise AssertionError(command)


DECIDER = Decider((Deposit, Transfer), (ACCOUNT,), "account_id", streams, decide)


@dataclass(frozen=True)
class WriteCheque:
    cheque_id: str
    account_id: str
    amount: int
    caller: str = ""


@dataclass(frozen=True)
class CashCheque:
    cheque_id: str


@dataclass(frozen=True)
class ChequeWritten:
    cheque_id: str
    account_id: str
    amount: int
    writer: str


@dataclass(frozen=True)
class ChequeCashed:
    cheque_id: str


@dataclass(frozen=True)
class Cheque:
    account_id: str = ""
    amount: int = 0


def evolve_cheque(cheque: Cheque, event: ChequeWritten | ChequeCashed) -> Cheque:
    match event:
        case ChequeWritten():
            return Cheque(event.account_id, event.amount)
        case ChequeCashed():
            return replace(cheque, amount=0)


CHEQUE = Aggregate("ledger.cheque", Cheque(), evolve_cheque, (ChequeWritten, ChequeCashed))


def cheque_streams(command: WriteCheque | CashCheque) -> Sequence[str]:
    return (CHEQUE.stream(command.cheque_id),)


def find_drawn_account(command: WriteCheque | CashCheque, states: Mapping[str, Cheque]) -> Sequence[str]:
    (cheque,) = states.values()
    return [ACCOUNT.stream(cheque.account_id)] if isinstance(command, CashCheque) and cheque.amount else []


def decide_cheque(
    command: WriteCheque | CashCheque, states: Mapping[str, Any], now: datetime
) -> Mapping[str, Sequence[Any]]:
    match command, list(states):
        case WriteCheque(), [cheque]:
            return {cheque: [ChequeWritten(*vars(command).values())]}
        case CashCheque(), [cheque, account]:
            paid = Paid(states[cheque].account_id, -states[cheque].amount)
            return {cheque: [ChequeCashed(command.cheque_id)], account: [paid]}
    raise Rejected("CHEQUE_WORTHLESS")


CHEQUES = Decider(
    (WriteCheque, CashCheque),
    (CHEQUE, ACCOUNT),
    "cheque_id",
    cheque_streams,
    decide_cheque,
    find_drawn_account,
)
EVENTS = EventTypes((ledger_pb2,))
CONTEXT = Context("ledger", commands=(ledger_pb2,), events=EVENTS, deciders=(DECIDER, CHEQUES))
