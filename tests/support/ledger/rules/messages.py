"""The commands and events of the ledger; amounts are in cents."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from command_server.kernel.field_rules import Id, at_least, at_most, between, length, matching
from tests.support.ledger.rules.shares import Memo, Share

Cents = Annotated[int, between(1)]


@dataclass(frozen=True)
class Deposit:
    account_id: Id
    amount: Cents


@dataclass(frozen=True)
class Transfer:
    account_id: Id
    payee_id: Id
    amount: Cents


@dataclass(frozen=True)
class Distribute:
    account_id: Id
    shares: Annotated[tuple[Share, ...], at_least(1), at_most(100)]
    memo: Memo


@dataclass(frozen=True)
class WriteCheque:
    cheque_id: Id
    account_id: Id
    amount: Cents
    currency_code: Annotated[str, matching("[A-Z]{3}")] = "EUR"
    caller: str = ""


@dataclass(frozen=True)
class EndorseCheque:
    cheque_id: Id
    caller: str = ""


@dataclass(frozen=True)
class CashCheque:
    cheque_id: Id


@dataclass(frozen=True)
class VoidCheque:
    cheque_id: Id
    reason: Annotated[str, length(0, 500)]


@dataclass(frozen=True)
class Paid:
    account_id: str
    amount: int


@dataclass(frozen=True)
class ChequeWritten:
    cheque_id: str
    account_id: str
    amount: int
    writer: str
    written_at: datetime
    currency_code: str


@dataclass(frozen=True)
class ChequeEndorsed:
    cheque_id: str
    endorser: str
    endorsed_at: datetime


@dataclass(frozen=True)
class ChequeCashed:
    cheque_id: str
    cashed_at: datetime


@dataclass(frozen=True)
class ChequeVoided:
    cheque_id: str
    reason: str
    voided_at: datetime
