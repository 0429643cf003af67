"""Commands and events of mandates."""

from dataclasses import dataclass
from datetime import datetime

from command_server.kernel.field_rules import Id
from command_server.kernel.money import Money, Payment

# Commands


@dataclass(frozen=True, slots=True)
class GrantMandate:
    """Let a customer order at the cost of an account, or change what they may order."""

    account_id: Id
    customer_id: Id
    order_limit: Payment
    total_limit: Payment
    until: datetime


@dataclass(frozen=True, slots=True)
class RevokeMandate:
    """End a mandate."""

    mandate_id: Id


# Events


@dataclass(frozen=True, slots=True)
class MandateGranted:
    """A customer may order at the cost of an account, within these limits."""

    mandate_id: str
    account_id: str
    customer_id: str
    owner_id: str
    order_limit: Money
    total_limit: Money
    until: datetime
    granted_at: datetime


@dataclass(frozen=True, slots=True)
class MandateRevoked:
    """A mandate ended."""

    mandate_id: str
    revoked_at: datetime


@dataclass(frozen=True, slots=True)
class MandateUsed:
    """Money was held under a mandate."""

    mandate_id: str
    hold_id: str
    amount: Money
    used: Money
    used_at: datetime


@dataclass(frozen=True, slots=True)
class MandateFreed:
    """Money that was held under a mandate was not paid out."""

    mandate_id: str
    hold_id: str
    amount: Money
    used: Money
    freed_at: datetime
