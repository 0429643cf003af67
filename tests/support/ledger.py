"""The ledger context: deposits, and transfers that touch two streams; it breaks on demand."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from grpc_tools import protoc

from command_server.kernel.context import Context
from command_server.kernel.decider import Aggregate, Decider, Rejected

HERE = Path(__file__).parent
POISON = 666
"""An amount that the ledger's own code fails on."""


def _compiled() -> Any:
    target = tempfile.mkdtemp(prefix="diptych-ledger-")
    protos = HERE.parents[1] / "protos"
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


ledger_pb2 = _compiled()


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
CONTEXT = Context("ledger", commands=(ledger_pb2,), events=(ledger_pb2,), deciders=(DECIDER,))
