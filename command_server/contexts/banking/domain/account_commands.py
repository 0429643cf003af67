"""Commands that change a single account: freeze, unfreeze, close."""

from collections.abc import Sequence
from datetime import datetime

from command_server.contexts.banking.domain import account as rules
from command_server.contexts.banking.domain.account import ACCOUNT, Account, Event, Freeze, Status
from command_server.contexts.banking.domain.messages import (
    AccountClosed,
    AccountFrozen,
    AccountUnfrozen,
    CloseAccount,
    FreezeAccount,
    UnfreezeAccount,
)
from command_server.kernel.decider import Rejected, one_stream
from command_server.kernel.field_rules import check_fields

Command = FreezeAccount | UnfreezeAccount | CloseAccount


def decide(command: Command, account: Account, now: datetime) -> Sequence[Event]:
    check_fields(command)
    id_ = command.account_id
    match command:
        case CloseAccount() if account.status is Status.CLOSED:
            return []
    rules.check_open(account, id_)
    match command:
        case FreezeAccount(_, reason, incoming_too):
            if account.freeze is Freeze.of(incoming_too=incoming_too):
                return []
            return [AccountFrozen(id_, reason, incoming_too, frozen_at=now)]
        case UnfreezeAccount():
            return [] if account.freeze is Freeze.NONE else [AccountUnfrozen(id_, unfrozen_at=now)]
        case CloseAccount():
            if account.balance or account.held:
                raise Rejected("ACCOUNT_NOT_EMPTY", account_id=id_)
            if account.cases:
                raise Rejected("ACCOUNT_FROZEN", account_id=id_)
            return [AccountClosed(id_, closed_at=now)]


DECIDER = one_stream(ACCOUNT, Command, key="account_id", decide=decide)
