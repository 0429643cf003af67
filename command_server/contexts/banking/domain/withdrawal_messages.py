"""Commands and events of withdrawals that a second person approves, and of what one person pays alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from command_server.contexts.banking.domain.messages import (
    OtherName,
    Reason,
    Reference,
    UniqueValues,
    list_name_texts,
)
from command_server.kernel.field_rules import Id
from command_server.kernel.money import Money, Payment

# Commands


@dataclass(frozen=True, slots=True)
class RequestWithdrawal:
    """Request a withdrawal that another person approves or declines."""

    withdrawal_id: Id
    account_id: Id
    amount: Payment
    reference: Reference
    counterparty_name: OtherName = ""
    caller: str = ""
    persons: frozenset[str] = frozenset()
    request_id: str = ""
    unique_values: UniqueValues = field(default_factory=dict)

    @property
    def claimed_texts(self) -> Sequence[str]:
        return list_name_texts(self.counterparty_name)


@dataclass(frozen=True, slots=True)
class ApproveWithdrawal:
    """Approve a requested withdrawal, which pays the money out."""

    withdrawal_id: Id
    caller: str = ""
    persons: frozenset[str] = frozenset()
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class DeclineWithdrawal:
    """Decline a requested withdrawal."""

    withdrawal_id: Id
    reason: Reason
    caller: str = ""


# Events


@dataclass(frozen=True, slots=True)
class WithdrawalRequested:
    """A withdrawal was requested that another person must approve."""

    withdrawal_id: str
    account_id: str
    owner_id: str
    amount: Money
    reference: str
    requested_by: str
    requesters: tuple[str, ...]
    requested_at: datetime


@dataclass(frozen=True, slots=True)
class WithdrawalApproved:
    """A requested withdrawal was approved, and the money paid out."""

    withdrawal_id: str
    approved_by: str
    approved_at: datetime


@dataclass(frozen=True, slots=True)
class WithdrawalDeclined:
    """A requested withdrawal was declined."""

    withdrawal_id: str
    reason: str
    declined_by: str
    declined_at: datetime


@dataclass(frozen=True, slots=True)
class PaymentCounted:
    """A person paid money out without an approval, of an account in this currency."""

    payer_id: str
    amount: Money
    counted_at: datetime
