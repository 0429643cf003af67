"""The commands and events of the ledger; amounts are in cents."""

from dataclasses import dataclass
from datetime import datetime

from tests.support.ledger.rules.shares import Memo, Share


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
class Distribute:
    account_id: str
    shares: tuple[Share, ...]
    memo: Memo


@dataclass(frozen=True)
class WriteCheque:
    cheque_id: str
    account_id: str
    amount: int
    currency_code: str = "EUR"
    caller: str = ""


@dataclass(frozen=True)
class EndorseCheque:
    cheque_id: str
    caller: str = ""


@dataclass(frozen=True)
class CashCheque:
    cheque_id: str


@dataclass(frozen=True)
class VoidCheque:
    cheque_id: str
    reason: str


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
