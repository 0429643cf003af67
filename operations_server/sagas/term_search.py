"""Finds the instances about a term, the latest begun first, in slices of bounded time."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from operations_server.records.database import Database
from operations_server.records.settled import FIND_NEWEST
from operations_server.records.terms import hash_term
from operations_server.sagas import term_statements as statements
from operations_server.sagas.term_index import KIND, to_event
from operations_server.sagas.terms import InstanceKey, SagaTerms

CHUNK = 5_000
"""Positions of one statement."""
MAX_EVENTS = 200
"""Events of one statement."""
MAX_SEGMENTS = 50
"""Segments that one statement names."""


@dataclass(frozen=True, slots=True)
class FoundInstances:
    """Instances whose first events have a term."""

    instances: Sequence[tuple[int, InstanceKey]]
    """The position of the first event, and the instance; the latest first."""
    scanned_to: int
    """The position above which all events were compared."""


class TermSearch:
    """Searches first events.

    Args:
        database: of the write model.
        terms: finds the terms of events.
    """

    def __init__(self, database: Database, terms: SagaTerms) -> None:
        self._database = database
        self._terms = terms

    async def search(self, term: str, upper: int | None) -> AsyncIterator[FoundInstances]:
        """Yield the instances, chunk by chunk, down to the first event.

        Args:
            term: of the first events.
            upper: only events up to this position; None for all.
        """
        covered = int(await self._database.fetch_value(statements.READ_PROGRESS))
        if upper is None:  # read later, so that no segment is above it
            upper = int(await self._database.fetch_value(FIND_NEWEST))
        async for found in self._read_range(term, covered, upper):
            yield found
        upper = min(upper, covered)
        while upper > 0 and (segments := await self._find_segments(term, upper)):
            for after, until in segments:
                async for found in self._read_range(term, after, min(until, upper)):
                    yield found
            upper = segments[-1]["after"]
            yield FoundInstances((), upper)

    async def _find_segments(self, term: str, upper: int) -> Sequence[Any]:
        """Return the latest segments with a term that begin below a position."""
        values = hash_term(KIND, term), upper, MAX_SEGMENTS
        return await self._database.fetch(statements.FIND_SEGMENTS, *values)

    async def _read_range(self, term: str, after: int, upper: int) -> AsyncIterator[FoundInstances]:
        types = self._terms.own_types, self._terms.keyed_types
        while upper > after:
            lower = max(after, upper - CHUNK)
            rows = await self._database.fetch(
                statements.FIND_EVENTS, lower, upper, *types, term.encode(), MAX_EVENTS
            )
            events = [to_event(row) for row in rows]
            upper = lower if len(rows) < MAX_EVENTS else events[-1].position - 1
            found = [
                (event.position, key) for event in events for key in self._terms.find_instances(event, term)
            ]
            yield FoundInstances(found, upper)
