"""The case aggregate: what the rules of compliance have found about an account, until a person has decided.

A case is opened by the command that gives cause to it, in its transaction, and freezes the account: no money
goes out. A person who has not caused it clears it, or confirms it, and then the account stays frozen for
good.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any
from uuid import UUID, uuid5

from command_server.contexts.banking.domain.account import ACCOUNT
from command_server.contexts.banking.domain.case_messages import (
    CaseCleared,
    CaseConfirmed,
    CaseOpened,
    ClearCase,
    ConfirmCase,
)
from command_server.contexts.banking.domain.messages import AccountUnblocked, CaseKind
from command_server.kernel.decider import Aggregate, Decider, NotFound, Rejected, members
from command_server.kernel.field_rules import check_fields
from command_server.kernel.persons import share_person

CASE_IDS = UUID("c1b7b0b6-52b5-5d64-8a7e-6a2f4f0f9b31")
"""UUID namespace of cases."""

Command = ClearCase | ConfirmCase
Event = CaseOpened | CaseCleared | CaseConfirmed
EventsByStream = Mapping[str, Sequence[Any]]


class Status(Enum):
    """Statuses of a case; NONE before it is opened."""

    NONE = "NONE"
    OPEN = "OPEN"
    CLEARED = "CLEARED"
    CONFIRMED = "CONFIRMED"


@dataclass(frozen=True, slots=True)
class Case:
    """The state of a case, as far as the rules need it."""

    status: Status = Status.NONE
    kind: CaseKind = CaseKind.UNSPECIFIED
    account_id: str = ""
    causers: tuple[str, ...] = ()
    """The persons behind the command that gave cause to it, and the account's owner."""


def evolve(case: Case, event: Event) -> Case:
    match event:
        case CaseOpened(_, account_id, owner_id, kind):
            return Case(Status.OPEN, kind, account_id, (*event.causers, owner_id))
        case CaseCleared():
            return replace(case, status=Status.CLEARED)
        case CaseConfirmed():
            return replace(case, status=Status.CONFIRMED)


CASE = Aggregate("banking.case", Case(), evolve, members(Event), subjects=lambda *_: ())  # no name is in it


def make_case_id(caller: str, request_id: str) -> str:
    """Return the id of the case that a request may open."""
    return str(uuid5(CASE_IDS, f"{caller}/{request_id}"))


def streams(command: Command) -> Sequence[str]:
    return (CASE.stream(command.case_id),)


def related_streams(command: Command, states: Mapping[str, Any]) -> Sequence[str]:
    """ClearCase also changes the account, which only the case's state names."""
    case: Case = states[CASE.stream(command.case_id)]
    frees = isinstance(command, ClearCase) and case.status is Status.OPEN
    return (ACCOUNT.stream(case.account_id),) if frees else ()


def decide(command: Command, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    check_fields(command)
    id_, reason, caller = command.case_id, command.reason, command.caller
    name = CASE.stream(id_)
    case: Case = states[name]
    if case.status is Status.NONE:
        raise NotFound("CASE_NOT_FOUND", case_id=id_)
    if case.status is Status.OPEN and share_person(caller, command.persons, case.causers):
        raise Rejected("CASE_SAME_CALLER", case_id=id_)
    match command, case.status:
        case ClearCase(), Status.OPEN:
            freed = AccountUnblocked(case.account_id, id_, unblocked_at=now)
            cleared = CaseCleared(id_, reason, caller, cleared_at=now)
            return {name: [cleared], ACCOUNT.stream(case.account_id): [freed]}
        case ConfirmCase(), Status.OPEN:
            return {name: [CaseConfirmed(id_, reason, caller, confirmed_at=now)]}
        case (ClearCase(), Status.CLEARED) | (ConfirmCase(), Status.CONFIRMED):
            return {}
    raise Rejected(f"CASE_ALREADY_{case.status.name}", case_id=id_)


DECIDER = Decider(members(Command), (CASE, ACCOUNT), "case_id", streams, decide, related_streams)
