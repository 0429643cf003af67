"""The overdraft aggregate: an overdraft limit that a second person lets an account have.

One person sets a limit up to SINGLE_PERSON_LIMIT, whatever it was before (`ChangeOverdraft`, which has no
aggregate of its own; `OpenAccount`). A higher one is requested by one person, and approved or declined by
another. It is the whole limit that counts, not by how much it is raised, so it cannot be raised in pieces.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any

from command_server.contexts.banking.domain import account as rules
from command_server.contexts.banking.domain.account import ACCOUNT, NO_MONEY, Account
from command_server.contexts.banking.domain.four_eyes import (
    SINGLE_PERSON_LIMIT,
)
from command_server.contexts.banking.domain.messages import OverdraftChanged
from command_server.contexts.banking.domain.overdraft_messages import (
    ApproveOverdraft,
    ChangeOverdraft,
    DeclineOverdraft,
    OverdraftApproved,
    OverdraftDeclined,
    OverdraftRequested,
    RequestOverdraft,
)
from command_server.kernel.decider import (
    Aggregate,
    AlreadyExists,
    Decider,
    NotFound,
    Rejected,
    members,
    one_stream,
)
from command_server.kernel.field_rules import check_fields
from command_server.kernel.money import Money
from command_server.kernel.persons import list_persons, share_person

Command = RequestOverdraft | ApproveOverdraft | DeclineOverdraft
Event = OverdraftRequested | OverdraftApproved | OverdraftDeclined
EventsByStream = Mapping[str, Sequence[Any]]


class Status(Enum):
    """Statuses of a requested limit; NONE before it is requested."""

    NONE = "NONE"
    REQUESTED = "REQUESTED"
    APPROVED = "APPROVED"
    DECLINED = "DECLINED"


@dataclass(frozen=True, slots=True)
class Overdraft:
    """The state of a requested limit, as far as the rules need it."""

    status: Status = Status.NONE
    account_id: str = ""
    owner_id: str = ""
    overdraft_limit: Money = NO_MONEY
    requesters: tuple[str, ...] = ()


def evolve(overdraft: Overdraft, event: Event) -> Overdraft:
    match event:
        case OverdraftRequested(_, account_id, owner_id, limit):
            return Overdraft(Status.REQUESTED, account_id, owner_id, limit, event.requesters)
        case OverdraftApproved():
            return replace(overdraft, status=Status.APPROVED)
        case OverdraftDeclined():
            return replace(overdraft, status=Status.DECLINED)


OVERDRAFT = Aggregate("banking.overdraft", Overdraft(), evolve, members(Event), owner="owner_id")


def streams(command: Command) -> Sequence[str]:
    """RequestOverdraft also reads the account named in the command."""
    name = OVERDRAFT.stream(command.overdraft_id)
    return (name, ACCOUNT.stream(command.account_id)) if isinstance(command, RequestOverdraft) else (name,)


def related_streams(command: Command, states: Mapping[str, Any]) -> Sequence[str]:
    """ApproveOverdraft also changes the account, which only the request's state names."""
    overdraft: Overdraft = states[OVERDRAFT.stream(command.overdraft_id)]
    changes = isinstance(command, ApproveOverdraft) and overdraft.status is Status.REQUESTED
    return (ACCOUNT.stream(overdraft.account_id),) if changes else ()


def decide(command: Command, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    check_fields(command)
    id_ = command.overdraft_id
    name = OVERDRAFT.stream(id_)
    overdraft: Overdraft = states[name]
    match command, overdraft.status:
        case RequestOverdraft(_, account_id, limit), Status.NONE:
            account: Account = states[ACCOUNT.stream(account_id)]
            rules.check_open(account, account_id)
            rules.check_currency(account, limit)
            people = command.caller, list_persons(command.caller, command.persons)
            return {name: [OverdraftRequested(id_, account_id, account.owner_id, limit, *people, now)]}
        case RequestOverdraft(_, account_id, limit), _:
            if (account_id, limit) == (overdraft.account_id, overdraft.overdraft_limit):
                return {}
            raise AlreadyExists("OVERDRAFT_EXISTS", overdraft_id=id_)
        case _, Status.NONE:
            raise NotFound("OVERDRAFT_NOT_FOUND", overdraft_id=id_)
        case ApproveOverdraft(_, caller, persons), Status.REQUESTED:
            if share_person(caller, persons, overdraft.requesters):
                raise Rejected("OVERDRAFT_SAME_CALLER", overdraft_id=id_)
            account_name = ACCOUNT.stream(overdraft.account_id)
            account_id, limit = overdraft.account_id, overdraft.overdraft_limit
            changed = set_limit(states[account_name], account_id, limit, now, id_)
            return {name: [OverdraftApproved(id_, caller, approved_at=now)], account_name: changed}
        case DeclineOverdraft(_, reason, caller), Status.REQUESTED:
            return {name: [OverdraftDeclined(id_, reason, caller, declined_at=now)]}
        case (ApproveOverdraft(), Status.APPROVED) | (DeclineOverdraft(), Status.DECLINED):
            return {}
    raise Rejected(f"OVERDRAFT_ALREADY_{overdraft.status.name}", overdraft_id=id_)


def set_limit(
    account: Account, account_id: str, limit: Money, now: datetime, overdraft_id: str = ""
) -> Sequence[OverdraftChanged]:
    """Return the event that gives an account a limit, or none if it has it.

    Raises:
        NotFound: the account does not exist.
        Rejected: it is closed or in another currency, or more is overdrawn or held than the limit allows.
    """
    rules.check_open(account, account_id)
    rules.check_currency(account, limit)
    if account.balance - account.held + limit < Money(limit.currency_code, 0):
        raise Rejected("OVERDRAFT_IN_USE", account_id=account_id)
    if limit == account.overdraft_limit:
        return []
    return [OverdraftChanged(account_id, limit, overdraft_id, changed_at=now)]


def change(command: ChangeOverdraft, account: Account, now: datetime) -> Sequence[OverdraftChanged]:
    """Return the event of a limit that one person sets, or none if the account has it.

    Raises:
        NotFound: the account does not exist.
        Rejected: a second person must approve the limit, or as `set_limit`.
    """
    check_fields(command)
    id_, limit = command.account_id, command.overdraft_limit
    changed = set_limit(account, id_, limit, now)
    is_raised = account.overdraft_limit < limit
    if is_raised and Money(limit.currency_code, SINGLE_PERSON_LIMIT) < limit:
        raise Rejected("OVERDRAFT_NEEDS_APPROVAL", above=SINGLE_PERSON_LIMIT)
    return changed


CHANGE_DECIDER = one_stream(ACCOUNT, ChangeOverdraft, key="account_id", decide=change)
DECIDER = Decider(members(Command), (OVERDRAFT, ACCOUNT), "overdraft_id", streams, decide, related_streams)
