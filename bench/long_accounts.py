"""Accounts with long histories, written to the event store directly: 100,000 events a second."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import asyncpg
from diptych.banking.v1.events_pb2 import AccountOpened, MoneyDeposited
from google.type.money_pb2 import Money

OTHER_CODE = "other code"
"""The fingerprint of their snapshots, as after a release that changed the fold."""
METADATA = '{"actor":"bench","command":"diptych.banking.v1.Deposit","correlation_id":"c","causation_id":"r"}'
PAGE = 50_000
"""Events that one statement writes."""


async def write_account(
    connection: "asyncpg.Connection[Any]", account_id: str, events: int, *, queued: bool = False
) -> None:
    """Write an account with one deposit of a euro after the other, and a snapshot of other code.

    Args:
        connection: of a superuser.
        account_id: its id.
        events: their number.
        queued: whether the relay publishes them.
    """
    stream, now = f"banking.account.{account_id}", datetime.now(UTC)
    before = now - timedelta(days=2)  # deposits of one day would be found to be a large one in pieces
    records = (
        (stream, version, type_, data, METADATA, now)
        for version, (type_, data) in enumerate(_generate_events(account_id, events, before), 1)
    )
    first = await connection.fetchval("SELECT coalesce(max(position), 0) FROM events")
    while page := list(islice(records, PAGE)):
        await connection.copy_records_to_table(
            "events", records=page, columns=["stream", "version", "type", "data", "metadata", "recorded_at"]
        )
    if queued:
        query = "INSERT INTO outbox (position) SELECT position FROM events WHERE position > $1 ORDER BY 1"
        await connection.execute(query, first)
    await connection.execute(
        "INSERT INTO streams (id, type, version, updated_at, state, state_version, fingerprint)"
        " VALUES ($1, 'banking.account', $2, $3, '{}', $2, $4)",
        *(stream, events, now, OTHER_CODE),
    )


def _generate_events(account_id: str, count: int, at: datetime) -> Iterator[tuple[str, bytes]]:
    opened = AccountOpened(account_id=account_id, owner_id="ada", currency_code="EUR")
    opened.overdraft_limit.currency_code = "EUR"
    opened.opened_at.FromDatetime(at)
    yield opened.DESCRIPTOR.full_name, opened.SerializeToString()
    nothing, euro = Money(currency_code="EUR"), Money(currency_code="EUR", units=1)
    event = MoneyDeposited(account_id=account_id, amount=euro, reference="pay", held=nothing)
    event.deposited_at.FromDatetime(at)
    event.balance.currency_code = "EUR"
    for units in range(1, count):
        event.balance.units = units
        yield event.DESCRIPTOR.full_name, event.SerializeToString()
