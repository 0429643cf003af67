"""The index of terms: the segments of events in which each term occurs. `IndexBuilder` builds it.

How it works. A segment covers the events above one position and up to another, and has the hashes of the
terms of all first events in it. It is added in one statement, and only below the settled position, so it
never misses an event. Events above the last segment are searched without it.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from contracts.envelope import RecordedEvent
from contracts.personal_data import remove_sealed
from operations_server.records.database import Driver
from operations_server.records.settled import FIND_NEWEST, await_event_writers
from operations_server.records.terms import hash_term
from operations_server.sagas import term_statements as statements
from operations_server.sagas.terms import SagaTerms

SEGMENT = 5_000
"""Positions that a segment covers."""
KIND = "saga"
"""The kind of the hashed terms."""
NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)


class TermSegments:
    """Builds the segments.

    Args:
        terms: finds the terms of events.
    """

    def __init__(self, terms: SagaTerms) -> None:
        self._terms = terms

    async def build(self, driver: Driver, max_age_passed: bool) -> int:
        """Add the next segment, and return the number of positions that it covers; 0 if there are too few.

        Args:
            driver: the connection that holds the builder's lock.
            max_age_passed: means nothing here: fewer events than a segment are searched quickly.
        """
        after = int(await driver.fetchval(statements.READ_PROGRESS))
        until = after + SEGMENT
        if int(await driver.fetchval(FIND_NEWEST)) < until:
            return 0
        await await_event_writers(driver)
        types = self._terms.own_types, self._terms.keyed_types
        rows = await driver.fetch(statements.READ_FIRST_EVENTS, after, until, *types)
        await driver.execute(statements.ADD_SEGMENT, after, until, await self._hash_all(rows))
        return SEGMENT

    async def _hash_all(self, rows: Sequence[Any]) -> list[int]:
        """Return the hashes of all terms, sorted, each once; the event loop runs in between."""
        terms = set[str]()
        for number, row in enumerate(rows):
            terms.update(self._terms.list_terms(to_event(row)))
            if number % 100 == 99:
                await asyncio.sleep(0)
        return sorted({hash_term(KIND, term) for term in terms})


def to_event(row: Any) -> RecordedEvent:
    """Return the event of a row, without its time, its metadata and what is sealed, which holds no terms."""
    event = RecordedEvent(
        row["stream"], row["version"], row["type"], row["data"], NO_TIME, row["position"], {}
    )
    try:
        return msgspec.structs.replace(event, data=remove_sealed(event))
    except Exception:  # it does not parse, so it has no terms
        return event
