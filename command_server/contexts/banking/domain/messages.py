"""Commands and events of banking's aggregates.

The server sets the field `caller` of a command to the subject of the caller's token, and `persons` to that
and to the person on whose behalf the caller acts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Annotated

from command_server.kernel.decider import InvalidValue, UniqueValue
from command_server.kernel.field_rules import Id, length, matching
from command_server.kernel.money import Limit, Money, Payment

CurrencyCode = Annotated[str, matching("[A-Z]{3}")]
Reference = Annotated[str, length(1, 140)]
Reason = Annotated[str, length(1, 500)]
UniqueValues = Mapping[str, UniqueValue | InvalidValue]
OtherName = Annotated[str, length(0, 200)]


class CaseKind(Enum):
    """What the rules of compliance have found."""

    UNSPECIFIED = 0
    LARGE_CASH = 1
    STRUCTURING = 2
    """Several payments below the sum that is large, which are as much together."""
    LISTED_NAME = 3


def list_name_texts(name: str) -> Sequence[str]:
    """Return the text whose code is the id of a name on the list; none for an empty name."""
    return (f"name {name}",) if name else ()


def name_payer(caller: str, persons: frozenset[str], currency_code: str) -> str:
    """Return the text whose code is the id of a payer: the person, not the service that acts for them."""
    (person,) = persons - {caller} or {caller}
    return f"payer {currency_code} {person}"


def is_same_reference(reference: str, recorded: str) -> bool:
    """Return whether a command has the recorded reference, which is empty once the owner was forgotten."""
    return recorded in ("", reference)


# Commands


@dataclass(frozen=True, slots=True)
class OpenAccount:
    """Open an account; an overdraft limit of None means zero, a daily limit of None means no limit."""

    account_id: Id
    owner_id: Id
    currency_code: CurrencyCode
    overdraft_limit: Limit | None
    daily_withdrawal_limit: Limit | None
    owner_name: OtherName = ""
    caller: str = ""
    persons: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    request_id: str = ""
    unique_values: UniqueValues = field(default_factory=dict)

    @property
    def claimed_texts(self) -> Sequence[str]:
        return list_name_texts(self.owner_name)


@dataclass(frozen=True, slots=True)
class Deposit:
    """Pay money into an account from outside the bank."""

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
class Withdraw:
    """Pay money out of an account without an approval."""

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
        return (self.payer, *list_name_texts(self.counterparty_name))

    @property
    def payer(self) -> str:
        return name_payer(self.caller, self.persons, self.amount.currency_code)


@dataclass(frozen=True, slots=True)
class Transfer:
    """Move money between two accounts without an approval."""

    transfer_id: Id
    from_account_id: Id
    to_account_id: Id
    amount: Payment
    reference: Reference
    counterparty_name: OtherName = ""
    caller: str = ""
    persons: frozenset[str] = frozenset()
    request_id: str = ""
    unique_values: UniqueValues = field(default_factory=dict)

    @property
    def claimed_texts(self) -> Sequence[str]:
        return (self.payer, *list_name_texts(self.counterparty_name))

    @property
    def payer(self) -> str:
        return name_payer(self.caller, self.persons, self.amount.currency_code)


@dataclass(frozen=True, slots=True)
class RequestTransfer:
    """Request a transfer that another person approves or declines."""

    transfer_id: Id
    from_account_id: Id
    to_account_id: Id
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
class ApproveTransfer:
    """Approve a requested transfer, which moves the money."""

    transfer_id: Id
    caller: str = ""
    persons: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class DeclineTransfer:
    """Decline a requested transfer."""

    transfer_id: Id
    reason: Reason
    caller: str = ""


@dataclass(frozen=True, slots=True)
class PlaceHold:
    """Hold money of an account for what a customer orders."""

    hold_id: Id
    account_id: Id
    amount: Payment
    deadline: datetime
    reference: Reference
    customer_id: Id


@dataclass(frozen=True, slots=True)
class FirmHold:
    """Remove the deadline of a hold."""

    hold_id: Id


@dataclass(frozen=True, slots=True)
class CaptureHold:
    """Pay out a part of a hold, or all of it if the amount is None."""

    hold_id: Id
    amount: Payment | None


@dataclass(frozen=True, slots=True)
class ReleaseHold:
    """Make the held money available again."""

    hold_id: Id
    reason: Reason


@dataclass(frozen=True, slots=True)
class ExpireHold:
    """Release a hold whose deadline has passed."""

    hold_id: Id


@dataclass(frozen=True, slots=True)
class PayRefund:
    """Pay money back into an account, once for each refund id."""

    refund_id: Id
    account_id: Id
    amount: Payment
    reference: Reference


@dataclass(frozen=True, slots=True)
class FreezeAccount:
    """Block outgoing payments and new holds and, with `incoming_too`, incoming payments."""

    account_id: Id
    reason: Reason
    incoming_too: bool


@dataclass(frozen=True, slots=True)
class UnfreezeAccount:
    """End the freeze of an account."""

    account_id: Id


@dataclass(frozen=True, slots=True)
class CloseAccount:
    """Close an account for good."""

    account_id: Id


# Events


@dataclass(frozen=True, slots=True)
class AccountOpened:
    """An empty account was opened."""

    account_id: str
    owner_id: str
    currency_code: str
    overdraft_limit: Money
    daily_withdrawal_limit: Money | None
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class MoneyDeposited:
    """Money was paid in."""

    account_id: str
    amount: Money
    reference: str
    balance: Money
    held: Money
    deposited_at: datetime
    refund_id: str = ""
    owner_id: str = ""


@dataclass(frozen=True, slots=True)
class MoneyWithdrawn:
    """Money was paid out."""

    account_id: str
    amount: Money
    reference: str
    balance: Money
    held: Money
    withdrawn_at: datetime
    withdrawal_id: str = ""
    owner_id: str = ""


@dataclass(frozen=True, slots=True)
class TransferSent:
    """Money was transferred to another account."""

    account_id: str
    transfer_id: str
    to_account_id: str
    amount: Money
    reference: str
    balance: Money
    held: Money
    sent_at: datetime
    approved: bool = False
    owner_id: str = ""


@dataclass(frozen=True, slots=True)
class TransferReceived:
    """Money was transferred from another account."""

    account_id: str
    transfer_id: str
    from_account_id: str
    amount: Money
    reference: str
    balance: Money
    held: Money
    received_at: datetime
    owner_id: str = ""


@dataclass(frozen=True, slots=True)
class MoneyHeld:
    """A part of the balance was held."""

    account_id: str
    hold_id: str
    amount: Money
    balance: Money
    held: Money
    held_at: datetime


@dataclass(frozen=True, slots=True)
class HeldMoneyReleased:
    """Held money became available again."""

    account_id: str
    hold_id: str
    amount: Money
    balance: Money
    held: Money
    released_at: datetime


@dataclass(frozen=True, slots=True)
class HeldMoneyCaptured:
    """Held money was paid out."""

    account_id: str
    hold_id: str
    amount: Money
    released: Money
    balance: Money
    held: Money
    captured_at: datetime


@dataclass(frozen=True, slots=True)
class AccountFrozen:
    """An account was frozen."""

    account_id: str
    reason: str
    incoming_too: bool
    frozen_at: datetime


@dataclass(frozen=True, slots=True)
class AccountUnfrozen:
    """The freeze of an account ended."""

    account_id: str
    unfrozen_at: datetime


@dataclass(frozen=True, slots=True)
class AccountBlocked:
    """A case froze an account."""

    account_id: str
    case_id: str
    kind: CaseKind
    blocked_at: datetime


@dataclass(frozen=True, slots=True)
class AccountUnblocked:
    """A case that had frozen an account was cleared."""

    account_id: str
    case_id: str
    unblocked_at: datetime


@dataclass(frozen=True, slots=True)
class OverdraftChanged:
    """The overdraft limit of an account changed."""

    account_id: str
    overdraft_limit: Money
    overdraft_id: str
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class AccountClosed:
    """An account was closed."""

    account_id: str
    closed_at: datetime


@dataclass(frozen=True, slots=True)
class HoldPlaced:
    """A hold was placed."""

    hold_id: str
    account_id: str
    amount: Money
    deadline: datetime
    reference: str
    placed_at: datetime
    owner_id: str = ""
    customer_id: str = ""
    mandate_id: str = ""


@dataclass(frozen=True, slots=True)
class HoldFirmed:
    """A hold became firm: its deadline no longer applies."""

    hold_id: str
    firmed_at: datetime


@dataclass(frozen=True, slots=True)
class HoldCaptured:
    """A hold was paid out, and the rest of it released."""

    hold_id: str
    amount: Money
    released: Money
    captured_at: datetime


@dataclass(frozen=True, slots=True)
class HoldReleased:
    """A hold was released."""

    hold_id: str
    reason: str
    released_at: datetime


@dataclass(frozen=True, slots=True)
class HoldExpired:
    """A hold was released because its deadline had passed."""

    hold_id: str
    expired_at: datetime


@dataclass(frozen=True, slots=True)
class TransferMade:
    """Money was transferred without an approval."""

    transfer_id: str
    from_account_id: str
    to_account_id: str
    amount: Money
    reference: str
    made_at: datetime
    owner_id: str = ""


@dataclass(frozen=True, slots=True)
class TransferRequested:
    """A transfer was requested that another person must approve."""

    transfer_id: str
    from_account_id: str
    to_account_id: str
    amount: Money
    reference: str
    requested_by: str
    requested_at: datetime
    owner_id: str = ""
    requesters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TransferApproved:
    """A requested transfer was approved, and the money moved."""

    transfer_id: str
    approved_by: str
    approved_at: datetime


@dataclass(frozen=True, slots=True)
class TransferDeclined:
    """A requested transfer was declined."""

    transfer_id: str
    reason: str
    declined_by: str
    declined_at: datetime


@dataclass(frozen=True, slots=True)
class RefundPaid:
    """A refund was paid into an account."""

    refund_id: str
    account_id: str
    amount: Money
    reference: str
    paid_at: datetime
    owner_id: str = ""
