"""Commands and events of cases and of the list of names."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from command_server.contexts.banking.domain.messages import (
    CaseKind,
    Reason,
    UniqueValues,
    list_name_texts,
)
from command_server.kernel.field_rules import Id, length
from command_server.kernel.money import Money

ListedText = Annotated[str, length(1, 200)]


# Commands


@dataclass(frozen=True, slots=True)
class ClearCase:
    """Clear a case: there is nothing wrong. The account is free unless something else keeps it frozen."""

    case_id: Id
    reason: Reason
    caller: str = ""
    persons: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ConfirmCase:
    """Confirm a case: the account stays frozen."""

    case_id: Id
    reason: Reason
    caller: str = ""
    persons: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class AddListedName:
    """Add a name to the list: payments with it open cases."""

    name: ListedText
    reason: Reason
    caller: str = ""
    unique_values: UniqueValues = field(default_factory=dict)

    @property
    def claimed_texts(self) -> Sequence[str]:
        return list_name_texts(self.name)


@dataclass(frozen=True, slots=True)
class RemoveListedName:
    """Remove a name from the list."""

    name: ListedText
    reason: Reason
    caller: str = ""
    unique_values: UniqueValues = field(default_factory=dict)

    @property
    def claimed_texts(self) -> Sequence[str]:
        return list_name_texts(self.name)


# Events


@dataclass(frozen=True, slots=True)
class CaseOpened:
    """The rules found something, and the account is frozen."""

    case_id: str
    account_id: str
    owner_id: str
    kind: CaseKind
    amount: Money | None
    counterparty_name: str
    caused_by: str
    causers: tuple[str, ...]
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class CaseCleared:
    """A person found nothing wrong."""

    case_id: str
    reason: str
    cleared_by: str
    cleared_at: datetime


@dataclass(frozen=True, slots=True)
class CaseConfirmed:
    """A person confirmed what the rules found."""

    case_id: str
    reason: str
    confirmed_by: str
    confirmed_at: datetime


@dataclass(frozen=True, slots=True)
class ListedNameAdded:
    """A name came on the list."""

    listed_name_id: str
    name: str
    reason: str
    added_by: str
    added_at: datetime


@dataclass(frozen=True, slots=True)
class ListedNameRemoved:
    """A name is no longer on the list."""

    listed_name_id: str
    reason: str
    removed_by: str
    removed_at: datetime
