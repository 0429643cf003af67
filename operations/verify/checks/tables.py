"""The tables beside the events in PostgreSQL: the outbox, and the receipts of accepted requests."""

from collections import Counter
from collections.abc import AsyncIterator

from operations.verify.model import Problem
from operations.verify.sources import PostgresReader


async def check(postgres: PostgresReader, counts: Counter[str]) -> AsyncIterator[Problem]:
    """Yield outbox rows without an event, and receipts that name a version without an event.

    Args:
        postgres: the database.
        counts: receives the numbers of rows.
    """
    rows, pending = await postgres.count_outbox_rows()
    counts.update(outbox=rows, pending=pending)
    for position in await postgres.find_outbox_rows_without_event():
        yield Problem("outbox", f"outbox {position}", "no event at this position")
    async for page in postgres.read_receipts():
        counts["requests"] += len(page)
        for caller, request_id, missing_version in page:
            if missing_version is not None:
                text = f"receipt names {missing_version}, which does not exist"
                yield Problem("requests", f"request {request_id} of {caller}", text)
