"""The mandate aggregate: whether, and for how much, a customer may order at the cost of somebody's account.

There is one for each account and customer. It counts what is held under it and what was paid out of that:
holds write their amounts to its stream, and write back what they did not pay, each once, since a hold is
placed once and ends once. Neither a new grant nor the end of a mandate changes that sum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any
from uuid import UUID, uuid5

from command_server.contexts.banking.domain import account as rules
from command_server.contexts.banking.domain.account import ACCOUNT, NO_MONEY, Account
from command_server.contexts.banking.domain.mandate_messages import (
    GrantMandate,
    MandateFreed,
    MandateGranted,
    MandateRevoked,
    MandateUsed,
    RevokeMandate,
)
from command_server.kernel.decider import Aggregate, Decider, NotFound, Rejected, members, one_stream
from command_server.kernel.field_rules import check_fields
from command_server.kernel.money import Money

MANDATE_IDS = UUID("5d1c8f0e-7a34-5b0f-9c52-2f6f0e0d9a17")
"""UUID namespace of mandates."""

Event = MandateGranted | MandateRevoked | MandateUsed | MandateFreed
EventsByStream = Mapping[str, Sequence[Any]]


class Status(Enum):
    """Statuses of a mandate; NONE before it is granted. One whose time is over is GRANTED."""

    NONE = "NONE"
    GRANTED = "GRANTED"
    REVOKED = "REVOKED"


@dataclass(frozen=True, slots=True)
class Mandate:
    """The state of a mandate, as far as the rules need it."""

    status: Status = Status.NONE
    account_id: str = ""
    customer_id: str = ""
    owner_id: str = ""
    order_limit: Money = NO_MONEY
    total_limit: Money = NO_MONEY
    until: datetime | None = None
    used: Money = NO_MONEY
    """What is held under it, and what was paid out."""


def evolve(mandate: Mandate, event: Event) -> Mandate:
    match event:
        case MandateGranted(_, account_id, customer_id, owner_id, order_limit, total_limit, until):
            zero = Money(total_limit.currency_code, 0)
            used = zero if mandate.status is Status.NONE else mandate.used
            status = Status.GRANTED
            return Mandate(status, account_id, customer_id, owner_id, order_limit, total_limit, until, used)
        case MandateRevoked():
            return replace(mandate, status=Status.REVOKED)
        case MandateUsed() | MandateFreed():
            return replace(mandate, used=event.used)


MANDATE = Aggregate("banking.mandate", Mandate(), evolve, members(Event), owner="owner_id")


def make_mandate_id(account_id: str, customer_id: str) -> str:
    return str(uuid5(MANDATE_IDS, f"{account_id}\n{customer_id}"))


def grant_streams(command: GrantMandate) -> Sequence[str]:
    """GrantMandate also reads the account, which names the owner."""
    mandate_id = make_mandate_id(command.account_id, command.customer_id)
    return (MANDATE.stream(mandate_id), ACCOUNT.stream(command.account_id))


def decide_grant(command: GrantMandate, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    """Return the event of a grant by stream, or none if the customer has the same mandate."""
    check_fields(command)
    name, _ = grant_streams(command)
    granted = grant(command, states, now)
    return {} if evolve(states[name], granted) == states[name] else {name: [granted]}


def revoke(command: RevokeMandate, mandate: Mandate, now: datetime) -> Sequence[MandateRevoked]:
    check_fields(command)
    if mandate.status is Status.NONE:
        raise NotFound("MANDATE_NOT_FOUND", mandate_id=command.mandate_id)
    is_over = mandate.status is Status.REVOKED
    return [] if is_over else [MandateRevoked(command.mandate_id, revoked_at=now)]


def grant(command: GrantMandate, states: Mapping[str, Any], now: datetime) -> MandateGranted:
    """Return the event of a grant, by the owner of the account.

    Raises:
        NotFound: the account does not exist.
        Rejected: it is closed or the customer's own, a limit is in another currency, or the time is over.
    """
    id_, customer_id = command.account_id, command.customer_id
    account: Account = states[ACCOUNT.stream(id_)]
    rules.check_open(account, id_)
    rules.check_currency(account, command.order_limit)
    rules.check_currency(account, command.total_limit)
    if account.owner_id == customer_id:
        raise Rejected("MANDATE_OF_OWNER", account_id=id_, customer_id=customer_id)
    if command.until <= now:
        raise Rejected("MANDATE_UNTIL_INVALID", until=command.until, now=now)
    mandate_id, owner_id = make_mandate_id(id_, customer_id), account.owner_id
    limits = command.order_limit, command.total_limit
    return MandateGranted(mandate_id, id_, customer_id, owner_id, *limits, command.until, granted_at=now)


# Holds under a mandate


def check_covers(mandate: Mandate, account_id: str, customer_id: str, amount: Money, now: datetime) -> None:
    """Raise Rejected unless a mandate covers an order of this amount, which is in the account's currency.

    Raises:
        Rejected: nothing lets the customer order at the cost of the account, or not for so much.
    """
    if mandate.status is Status.NONE or mandate.until is None:
        raise Rejected("MANDATE_MISSING", account_id=account_id, customer_id=customer_id)
    if mandate.status is Status.REVOKED:
        raise Rejected("MANDATE_REVOKED", account_id=account_id, customer_id=customer_id)
    if mandate.until <= now:
        raise Rejected("MANDATE_EXPIRED", until=mandate.until)
    if mandate.order_limit < amount:
        raise Rejected("MANDATE_ORDER_LIMIT_EXCEEDED", account_id=account_id, customer_id=customer_id)
    if mandate.total_limit < mandate.used + amount:
        raise Rejected("MANDATE_TOTAL_LIMIT_EXCEEDED", account_id=account_id, customer_id=customer_id)


def use(
    mandate_id: str, hold_id: str, amount: Money, states: Mapping[str, Any], now: datetime
) -> EventsByStream:
    """Return the event of money that is held under a mandate, by stream; none without a mandate."""
    if not mandate_id:
        return {}
    mandate: Mandate = states[MANDATE.stream(mandate_id)]
    used = MandateUsed(mandate_id, hold_id, amount, mandate.used + amount, used_at=now)
    return {MANDATE.stream(mandate_id): [used]}


def free(
    mandate_id: str, hold_id: str, amount: Money, states: Mapping[str, Any], now: datetime
) -> EventsByStream:
    """Return the event of held money that was not paid out, by stream; none without a mandate."""
    if not mandate_id or not amount:
        return {}
    mandate: Mandate = states[MANDATE.stream(mandate_id)]
    freed = MandateFreed(mandate_id, hold_id, amount, mandate.used - amount, freed_at=now)
    return {MANDATE.stream(mandate_id): [freed]}


# The mandate, if there is one, and the account must be the caller's.
GRANT_DECIDER = Decider(
    (GrantMandate,),
    (MANDATE, ACCOUNT),
    "account_id",
    grant_streams,
    decide_grant,
    owned_streams=grant_streams,
)
DECIDER = one_stream(MANDATE, RevokeMandate, key="mandate_id", decide=revoke)
