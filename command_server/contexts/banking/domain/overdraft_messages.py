"""Commands and events of overdrafts."""

from dataclasses import dataclass
from datetime import datetime

from command_server.contexts.banking.domain.messages import Reason
from command_server.kernel.field_rules import Id
from command_server.kernel.money import Limit, Money

# Commands


@dataclass(frozen=True, slots=True)
class ChangeOverdraft:
    """Change the overdraft limit of an account without an approval."""

    account_id: Id
    overdraft_limit: Limit


@dataclass(frozen=True, slots=True)
class RequestOverdraft:
    """Request an overdraft limit that another person approves or declines."""

    overdraft_id: Id
    account_id: Id
    overdraft_limit: Limit
    caller: str = ""
    persons: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ApproveOverdraft:
    """Approve a requested overdraft limit, which is in force from then on."""

    overdraft_id: Id
    caller: str = ""
    persons: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class DeclineOverdraft:
    """Decline a requested overdraft limit."""

    overdraft_id: Id
    reason: Reason
    caller: str = ""


# Events


@dataclass(frozen=True, slots=True)
class OverdraftRequested:
    """An overdraft limit was requested that another person must approve."""

    overdraft_id: str
    account_id: str
    owner_id: str
    overdraft_limit: Money
    requested_by: str
    requesters: tuple[str, ...]
    requested_at: datetime


@dataclass(frozen=True, slots=True)
class OverdraftApproved:
    """A requested overdraft limit was approved."""

    overdraft_id: str
    approved_by: str
    approved_at: datetime


@dataclass(frozen=True, slots=True)
class OverdraftDeclined:
    """A requested overdraft limit was declined."""

    overdraft_id: str
    reason: str
    declined_by: str
    declined_at: datetime
