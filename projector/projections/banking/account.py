"""The account as it is read: every field of `diptych.banking.v1.Account`."""

from diptych.banking.v1 import events_pb2 as events
from diptych.banking.v1 import types_pb2 as views
from google.type.money_pb2 import Money

from contracts.view_layout import View
from projector.projection import Projection

NANOS = 10**9
Movement = (
    events.MoneyDeposited
    | events.MoneyWithdrawn
    | events.TransferSent
    | events.TransferReceived
    | events.MoneyHeld
    | events.HeldMoneyReleased
    | events.HeldMoneyCaptured
)

ACCOUNTS = Projection[views.Account](
    View.of(views.Account), events=[events], columns=("state", "owner_id", "balance", "held")
)


@ACCOUNTS.on(events.AccountOpened)
def opened(account: views.Account, event: events.AccountOpened) -> None:
    """It begins, empty."""
    account.account_id = event.account_id
    account.state = views.Account.STATE_OPEN
    account.owner_id = event.owner_id
    account.currency_code = event.currency_code
    account.balance.currency_code = account.held.currency_code = event.currency_code
    account.overdraft_limit.CopyFrom(event.overdraft_limit)
    if event.HasField("daily_withdrawal_limit"):
        account.daily_withdrawal_limit.CopyFrom(event.daily_withdrawal_limit)
    account.open_time.CopyFrom(event.opened_at)
    _count(account)


def moved(account: views.Account, event: Movement) -> None:
    """Every movement tells what there is afterwards."""
    account.balance.CopyFrom(event.balance)
    account.held.CopyFrom(event.held)
    _count(account)


for movement in Movement.__args__:
    ACCOUNTS.on(movement)(moved)


@ACCOUNTS.on(events.AccountFrozen)
def frozen(account: views.Account, event: events.AccountFrozen) -> None:
    """It gives nothing, and perhaps takes nothing."""
    both = event.incoming_too
    account.state = views.Account.STATE_FROZEN_BOTH_WAYS if both else views.Account.STATE_FROZEN
    account.freeze_reason = event.reason


@ACCOUNTS.on(events.AccountUnfrozen)
def unfrozen(account: views.Account, _: events.AccountUnfrozen) -> None:
    """It is used again; why it was frozen stays known."""
    account.state = views.Account.STATE_OPEN


@ACCOUNTS.on(events.AccountClosed)
def closed(account: views.Account, event: events.AccountClosed) -> None:
    """Final."""
    account.state = views.Account.STATE_CLOSED
    account.close_time.CopyFrom(event.closed_at)


def _count(account: views.Account) -> None:
    """Bring what is available up to the rest."""
    nanos = _nanos(account.balance) - _nanos(account.held) + _nanos(account.overdraft_limit)
    units, rest = divmod(abs(nanos), NANOS)
    sign = -1 if nanos < 0 else 1
    account.available.currency_code = account.currency_code
    account.available.units, account.available.nanos = sign * units, sign * rest


def _nanos(amount: Money) -> int:
    return int(amount.units) * NANOS + int(amount.nanos)
