"""Events put straight into the tables, relays in this process, and what the stream holds in the end."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from command_server.postgres.event_store import session_settings
from command_server.postgres.schema import RELAY_ROLE
from command_server.relay.event_stream import EventStream
from command_server.relay.outbox import Outbox
from command_server.relay.relay import Publisher, Relay
from contracts.envelope import RecordedEvent, from_message
from runtime.jetstream import Connection, StreamIdentity, StreamReader, connect, stream_identity
from runtime.postgres import create_engine
from runtime.process.lifecycle import cancelled
from tests.support.harness.waiting import until

APPEND = text("""
WITH new AS (
    INSERT INTO events (stream, version, type, data, metadata, recorded_at)
    SELECT stream, version, 'a.v1.Happened', CAST(:data AS bytea), CAST(:metadata AS json), now()
    FROM unnest(CAST(:streams AS text[]), CAST(:versions AS bigint[])) WITH ORDINALITY
        AS e (stream, version, nth)
    ORDER BY nth RETURNING position
)
INSERT INTO outbox (position) SELECT position FROM new
""")

Found = dict[int, RecordedEvent]
"""What the stream holds, by sequence."""


class Writer:
    """Commits events as command servers do: one transaction, versions without gaps."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._versions: dict[str, int] = defaultdict(int)

    async def commit(self, *names: str, data: bytes = b"data", metadata: str = '{"actor": "alice"}') -> None:
        async with self.transaction() as transaction:
            await self.append(transaction, *names, data=data, metadata=metadata)

    def transaction(self) -> Any:
        return self.engine.begin()

    async def append(
        self,
        transaction: AsyncConnection,
        *names: str,
        data: bytes = b"data",
        metadata: str = '{"actor": "alice"}',
    ) -> None:
        streams, versions = [], []
        for name in names:
            self._versions[name] += 1
            streams.append(f"a.b.{name}")
            versions.append(self._versions[name])
        parameters = {"streams": streams, "versions": versions, "data": data, "metadata": metadata}
        await transaction.execute(APPEND, parameters)

    async def rows(self, sql: str) -> Sequence[Any]:
        async with self.engine.begin() as connection:
            result = await connection.execute(text(sql))
            return result.all() if result.returns_rows else []

    async def pending(self) -> int:
        return int((await self.rows("SELECT count(*) FROM outbox WHERE sequence IS NULL"))[0][0])

    async def all_published(self, seconds: float = 20.0) -> None:
        async def nothing_pending() -> bool:
            return await self.pending() == 0

        await until(nothing_pending, seconds)


@asynccontextmanager
async def writer(database_url: str) -> AsyncIterator[Writer]:
    engine = create_engine(database_url)
    yield Writer(engine)
    await engine.dispose()


class RunningRelay:
    """A relay of this process that leads without asking for a lease."""

    def __init__(self, relay: Relay, outbox: Outbox, stream: EventStream, connection: Connection) -> None:
        self.relay = relay
        self.outbox = outbox
        self.stream = stream
        self.connection = connection
        self.task = asyncio.create_task(relay.lead())

    async def stop(self) -> None:
        await cancelled(self.task)
        with suppress(asyncio.CancelledError):
            self.task.result()  # raises what it died of, if it did


@asynccontextmanager
async def relay(
    database_url: str,
    nats_url: str,
    publisher: Callable[[EventStream], Publisher] = lambda stream: stream,
    stream: type[EventStream] = EventStream,
) -> AsyncIterator[RunningRelay]:
    """Run a relay, with `publisher` round its stream."""
    engine = create_engine(database_url, session=session_settings(RELAY_ROLE))
    async with await connect(nats_url, "relay") as connection:
        events = stream(connection)
        outbox = Outbox(engine)
        running = RunningRelay(Relay(outbox, events, publisher(events)), outbox, events, connection)
        try:
            yield running
        finally:
            await running.stop()
            await engine.dispose()


async def identity(connection: Connection) -> StreamIdentity:
    found = await stream_identity(connection.js)
    assert found is not None
    return found


async def complete(connection: Connection, other_than: str = "") -> StreamIdentity:
    """Wait until there is a filled stream, of another epoch than this one, and return what it is."""

    found: StreamIdentity | None = None

    async def is_filled() -> bool:
        nonlocal found
        found = await stream_identity(connection.js)
        return found is not None and found.complete and found.epoch != other_than

    await until(is_filled)
    assert found is not None
    return found


async def contents(connection: Connection) -> Found:
    """Return every event of the stream."""
    stream = await identity(connection)
    reader = await StreamReader.open(connection, stream.epoch, 1)
    found: Found = {}
    while len(found) < stream.messages:
        batch = await reader.batch(1_000, 5)
        assert batch
        for message in batch:
            found[message.sequence] = from_message(message.subject, message.headers, message.data)
    await reader.close()
    return found


async def assert_whole(connection: Connection, writer: Writer) -> Found:
    """Assert that the stream holds each committed event once, each aggregate's in order; return them."""
    found = await contents(connection)
    positions = sorted(event.position for event in found.values())
    committed = [row[0] for row in await writer.rows("SELECT position FROM events ORDER BY position")]
    assert positions == committed
    versions: dict[str, list[int]] = defaultdict(list)
    for _sequence, event in sorted(found.items()):
        versions[event.stream].append(event.version)
    for stream, seen in versions.items():
        assert seen == list(range(1, len(seen) + 1)), stream
    marked = await writer.rows("SELECT position, sequence, epoch FROM outbox WHERE sequence IS NOT NULL")
    epoch = (await identity(connection)).epoch
    for position, sequence, marked_epoch in marked:
        assert (found[sequence].position, str(marked_epoch)) == (position, epoch)
    return found
