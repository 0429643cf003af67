"""The view of an account: every field of `diptych.banking.v1.Account`."""

from diptych.banking.v1 import events_pb2 as events
from diptych.banking.v1 import types_pb2 as views

from contracts.events.banking import EVENTS
from contracts.money import from_nanos, to_nanos
from contracts.view_layout import View
from projector.projection import Projection

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
    View.of(views.Account), events=EVENTS, columns=("state", "owner_id", "balance", "held")
)


@ACCOUNTS.on(events.AccountOpened)
def opened(account: views.Account, event: events.AccountOpened) -> None:
    account.account_id = event.account_id
    account.state = views.Account.STATE_OPEN
    account.owner_id = event.owner_id
    account.currency_code = event.currency_code
    account.balance.currency_code = account.held.currency_code = event.currency_code
    account.overdraft_limit.CopyFrom(event.overdraft_limit)
    if event.HasField("daily_withdrawal_limit"):
        account.daily_withdrawal_limit.CopyFrom(event.daily_withdrawal_limit)
    account.open_time.CopyFrom(event.opened_at)
    _update_available(account)


def moved(account: views.Account, event: Movement) -> None:
    """Every movement carries the balance and the held amount after it."""
    account.balance.CopyFrom(event.balance)
    account.held.CopyFrom(event.held)
    _update_available(account)


for movement in Movement.__args__:
    ACCOUNTS.on(movement)(moved)


@ACCOUNTS.on(events.AccountFrozen)
def frozen(account: views.Account, event: events.AccountFrozen) -> None:
    incoming_too = event.incoming_too
    account.state = views.Account.STATE_FROZEN_BOTH_WAYS if incoming_too else views.Account.STATE_FROZEN
    account.freeze_reason = event.reason
    account.freeze_in_force = True


@ACCOUNTS.on(events.AccountUnfrozen)
def unfrozen(account: views.Account, _: events.AccountUnfrozen) -> None:
    """The account keeps the reason of its last freeze."""
    account.freeze_in_force = False
    account.state = views.Account.STATE_FROZEN if account.cases else views.Account.STATE_OPEN


@ACCOUNTS.on(events.AccountBlocked)
def blocked(account: views.Account, _: events.AccountBlocked) -> None:
    account.cases += 1
    if not account.freeze_in_force:
        account.state = views.Account.STATE_FROZEN


@ACCOUNTS.on(events.AccountUnblocked)
def unblocked(account: views.Account, _: events.AccountUnblocked) -> None:
    account.cases -= 1
    if not account.cases and not account.freeze_in_force:
        account.state = views.Account.STATE_OPEN


@ACCOUNTS.on(events.OverdraftChanged)
def overdraft_changed(account: views.Account, event: events.OverdraftChanged) -> None:
    account.overdraft_limit.CopyFrom(event.overdraft_limit)
    _update_available(account)


@ACCOUNTS.on(events.AccountClosed)
def closed(account: views.Account, event: events.AccountClosed) -> None:
    account.state = views.Account.STATE_CLOSED
    account.close_time.CopyFrom(event.closed_at)


def _update_available(account: views.Account) -> None:
    """Set the available amount: balance - held + overdraft limit."""
    total = to_nanos(account.balance) - to_nanos(account.held) + to_nanos(account.overdraft_limit)
    account.available.CopyFrom(from_nanos(account.currency_code, total))
