"""What can be asked of banking, and what can happen in it."""

from dataclasses import dataclass
from datetime import datetime

from command_server.kernel.money import Money

# Commands: what can be asked.


@dataclass(frozen=True, slots=True)
class OpenAccount:
    """Open an account."""

    account_id: str
    owner_id: str
    currency_code: str
    overdraft_limit: Money | None
    daily_withdrawal_limit: Money | None


@dataclass(frozen=True, slots=True)
class Deposit:
    """Pay money in, from outside."""

    account_id: str
    amount: Money
    reference: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Pay money out."""

    account_id: str
    amount: Money
    reference: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """Move money between two accounts."""

    transfer_id: str
    from_account_id: str
    to_account_id: str
    amount: Money
    reference: str


@dataclass(frozen=True, slots=True)
class RequestTransfer:
    """Ask for a transfer that somebody else approves."""

    transfer_id: str
    from_account_id: str
    to_account_id: str
    amount: Money
    reference: str
    caller: str = ""


@dataclass(frozen=True, slots=True)
class ApproveTransfer:
    """Let a requested transfer take place."""

    transfer_id: str
    caller: str = ""


@dataclass(frozen=True, slots=True)
class DeclineTransfer:
    """End a requested transfer."""

    transfer_id: str
    reason: str
    caller: str = ""


@dataclass(frozen=True, slots=True)
class PlaceHold:
    """Hold money of an account."""

    hold_id: str
    account_id: str
    amount: Money
    deadline: datetime
    reference: str


@dataclass(frozen=True, slots=True)
class FirmHold:
    """Let a hold stand without a deadline."""

    hold_id: str


@dataclass(frozen=True, slots=True)
class CaptureHold:
    """Pay out what is held; all of it where no amount is named."""

    hold_id: str
    amount: Money | None


@dataclass(frozen=True, slots=True)
class ReleaseHold:
    """Let held money go."""

    hold_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ExpireHold:
    """Release a hold whose deadline has passed."""

    hold_id: str


@dataclass(frozen=True, slots=True)
class FreezeAccount:
    """Let an account give nothing, and take nothing where so asked."""

    account_id: str
    reason: str
    incoming_too: bool


@dataclass(frozen=True, slots=True)
class UnfreezeAccount:
    """Let a frozen account be used again."""

    account_id: str


@dataclass(frozen=True, slots=True)
class CloseAccount:
    """Close an account for good."""

    account_id: str


# Events: what can happen.


@dataclass(frozen=True, slots=True)
class AccountOpened:
    """An account was opened, empty."""

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


@dataclass(frozen=True, slots=True)
class MoneyWithdrawn:
    """Money was paid out."""

    account_id: str
    amount: Money
    reference: str
    balance: Money
    held: Money
    withdrawn_at: datetime


@dataclass(frozen=True, slots=True)
class TransferSent:
    """Money went to another account."""

    account_id: str
    transfer_id: str
    to_account_id: str
    amount: Money
    reference: str
    balance: Money
    held: Money
    sent_at: datetime


@dataclass(frozen=True, slots=True)
class TransferReceived:
    """Money came from another account."""

    account_id: str
    transfer_id: str
    from_account_id: str
    amount: Money
    reference: str
    balance: Money
    held: Money
    received_at: datetime


@dataclass(frozen=True, slots=True)
class MoneyHeld:
    """Money of the account was held."""

    account_id: str
    hold_id: str
    amount: Money
    balance: Money
    held: Money
    held_at: datetime


@dataclass(frozen=True, slots=True)
class HeldMoneyReleased:
    """Held money was let go."""

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
    """A frozen account can be used again."""

    account_id: str
    unfrozen_at: datetime


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


@dataclass(frozen=True, slots=True)
class HoldFirmed:
    """A hold was made firm."""

    hold_id: str
    firmed_at: datetime


@dataclass(frozen=True, slots=True)
class HoldCaptured:
    """A hold was paid out, and the rest let go."""

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
    """A hold was released since its deadline had passed."""

    hold_id: str
    expired_at: datetime


@dataclass(frozen=True, slots=True)
class TransferMade:
    """Money was transferred."""

    transfer_id: str
    from_account_id: str
    to_account_id: str
    amount: Money
    reference: str
    made_at: datetime


@dataclass(frozen=True, slots=True)
class TransferRequested:
    """A transfer was put to somebody else."""

    transfer_id: str
    from_account_id: str
    to_account_id: str
    amount: Money
    reference: str
    requested_by: str
    requested_at: datetime


@dataclass(frozen=True, slots=True)
class TransferApproved:
    """A requested transfer took place."""

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
