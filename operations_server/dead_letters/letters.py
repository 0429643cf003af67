"""Dead letters of projections and sagas in one list, the longest waiting first.

How it works. A page merges two sources: the sorted sets of parked aggregates in Redis (`ParkedList`), and the
failed inputs and parked streams of sagas in PostgreSQL (`SagaLetters`). Both give entries in the order of
their positions, and continue after any position, whichever source it is of.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

from diptych.operations.v1.dead_letters_pb2 import DeadLetter

from contracts import streams
from operations_server.dead_letters.saga_letters import SagaLetter, SagaLetters
from operations_server.parked.parked_list import Entry, ParkedList, Position
from operations_server.parked.times import cut_error, to_time
from operations_server.records.event_messages import make_printable
from projector.records import Parked

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Letter:
    """A dead letter and its position in the list."""

    position: Position
    source: Parked | SagaLetter
    message: DeadLetter


@dataclass(frozen=True)
class LetterFilter:
    """Selects dead letters.

    Args:
        projections: their names.
        sagas: their names.
        id: of the aggregate or instance; empty for all.
        error: a text in the error; empty for all.
        since_before: the time before which it began; None for any.
    """

    projections: Sequence[str]
    sagas: Sequence[str]
    id: str = ""
    error: str = ""
    since_before: datetime | None = None

    def selects(self, letter: Letter) -> bool:
        message = letter.message
        began_before = self.since_before is None or message.since.ToDatetime(UTC) < self.since_before
        return self.error in message.error and began_before


class DeadLetters:
    """Reads dead letters.

    Args:
        parked: those of projections.
        sagas: those of sagas.
    """

    def __init__(self, parked: ParkedList, sagas: SagaLetters) -> None:
        self._parked = parked
        self._sagas = sagas

    @property
    def saga_names(self) -> Sequence[str]:
        return self._sagas.names

    async def find(self, filter_: LetterFilter) -> Sequence[Letter]:
        """Return the dead letters of the filter's id."""
        entries = await self._parked.find(filter_.projections, filter_.id)
        rows = await self._sagas.find(filter_.sagas, filter_.id) if filter_.sagas else ()
        letters = [*map(describe_parked, entries), *map(describe_saga_letter, rows)]
        return [letter for letter in letters if filter_.selects(letter)]

    async def read_after(self, filter_: LetterFilter, after: Position | None) -> AsyncGenerator[Letter]:
        """Yield all dead letters of the filter's projections and sagas behind a position, in order."""
        parked = self._parked.read_after(filter_.projections, after)
        sagas = self._sagas.read_after(filter_.sagas, after)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(aclosing(parked))
            await stack.enter_async_context(aclosing(sagas))
            async for letter in _merge(_describe_all(parked), _describe_rows(sagas)):
                yield letter


async def _describe_all(entries: AsyncIterator[Entry]) -> AsyncIterator[Letter]:
    async for entry in entries:
        yield describe_parked(entry)


async def _describe_rows(rows: AsyncIterator[SagaLetter]) -> AsyncIterator[Letter]:
    async for row in rows:
        yield describe_saga_letter(row)


async def _merge(*sources: AsyncIterator[Letter]) -> AsyncIterator[Letter]:
    heads: dict[AsyncIterator[Letter], Letter] = {}
    for source in sources:
        await _advance(heads, source)
    while heads:
        source = min(heads, key=lambda each: heads[each].position)
        yield heads[source]
        await _advance(heads, source)


async def _advance(heads: dict[AsyncIterator[Letter], Letter], source: AsyncIterator[Letter]) -> None:
    heads.pop(source, None)
    async for letter in source:
        heads[source] = letter
        return


def describe_parked(entry: Entry) -> Letter:
    """Return the dead letter of a parked aggregate."""
    (_, projection, id_), parked = position, _ = entry
    message = DeadLetter(
        projection=projection,
        id=id_,
        stream=parked.stream,
        version=parked.version,
        error=cut_error(parked.error),
        place=parked.place,
        attempts=parked.attempts,
    )
    message.since.FromDatetime(to_time(parked.since))
    if parked.next_attempt is not None:
        message.next_attempt_time.FromDatetime(to_time(parked.next_attempt, now_if_zero=True))
    return Letter(position, parked, message)


def describe_saga_letter(row: SagaLetter) -> Letter:
    """Return the dead letter of a saga."""
    message = DeadLetter(
        saga=row.saga,
        id=row.id or streams.aggregate_id(row.stream),
        stream=row.stream,
        version=row.version,
        error=cut_error(make_printable(row.error)),
        place=row.place,
    )
    message.since.FromDatetime(row.since)
    return Letter(row.position, row, message)


def group_ids(letters: Sequence[Letter]) -> Mapping[str, Sequence[str]]:
    """Return the ids of the aggregates by projection, without the dead letters of sagas."""
    groups: dict[str, list[str]] = {}
    for letter in letters:
        if letter.message.projection:
            groups.setdefault(letter.message.projection, []).append(letter.message.id)
    return groups
