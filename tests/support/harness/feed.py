"""Events inserted directly into the tables, relays in the test process, and checks of the stream."""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from string import ascii_lowercase
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from command_server.postgres.event_store import session_settings
from command_server.postgres.schema import RELAY_ROLE
from command_server.relay.batch_sender import Publisher
from command_server.relay.event_stream import EventStream
from command_server.relay.outbox import Outbox
from command_server.relay.relay import Relay
from contracts.envelope import RecordedEvent
from contracts.signed_tokens import GetKeyRing
from runtime.jetstream import (
    Connection,
    StreamIdentity,
    StreamReader,
    connect,
    read_stream_identity,
)
from runtime.postgres import create_engine
from runtime.process.lifecycle import cancel_and_wait
from tests.support.harness.keys import get_ring
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

EventsBySequence = dict[int, RecordedEvent]
"""The events of the stream by sequence."""


class Writer:
    """Commits events as command servers do: in one transaction, with gapless versions."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._versions: dict[str, int] = defaultdict(int)

    async def commit(self, *names: str, data: bytes = b"data", metadata: str = '{"actor": "alice"}') -> None:
        async with self.begin() as transaction:
            await self.append(transaction, *names, data=data, metadata=metadata)

    def begin(self) -> Any:
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

    async def query(self, sql: str) -> Sequence[Any]:
        async with self.engine.begin() as connection:
            result = await connection.execute(text(sql))
            return result.all() if result.returns_rows else []

    async def count_pending(self) -> int:
        return int((await self.query("SELECT count(*) FROM outbox WHERE sequence IS NULL"))[0][0])

    async def wait_until_published(self, seconds: float = 20.0) -> None:
        async def nothing_pending() -> bool:
            return await self.count_pending() == 0

        await until(nothing_pending, seconds)

    async def read_marked_sequence(self) -> int:
        return int((await self.query("SELECT sequence FROM relay_state"))[0][0])

    async def wait_until_marked(self, more: int) -> None:
        """Wait until this many more events of the stream are marked."""
        start = await self.read_marked_sequence()

        async def are_marked() -> bool:
            return await self.read_marked_sequence() >= start + more

        await until(are_marked)


@asynccontextmanager
async def writer(database_url: str) -> AsyncIterator[Writer]:
    engine = create_engine(database_url)
    yield Writer(engine)
    await engine.dispose()


@asynccontextmanager
async def generate_load(writer: Writer, pause: float = 0.01) -> AsyncIterator[None]:
    """Commit events of 26 aggregates until the block ends, 20 at a time with a pause after each commit."""
    stop = asyncio.Event()

    async def commit() -> None:
        while not stop.is_set():
            await writer.commit(*random.choices(ascii_lowercase, k=20))
            await asyncio.sleep(pause)

    async with asyncio.TaskGroup() as group:
        group.create_task(commit())
        try:
            yield
        finally:
            stop.set()


class RunningRelay:
    """A relay in the test process that leads without a lease."""

    def __init__(self, relay: Relay, outbox: Outbox, stream: EventStream, connection: Connection) -> None:
        self.relay = relay
        self.outbox = outbox
        self.stream = stream
        self.connection = connection
        self.task = asyncio.create_task(relay.lead())

    async def stop(self) -> None:
        await cancel_and_wait(self.task)
        with suppress(asyncio.CancelledError):
            self.task.result()  # raises the error of a failed relay


@asynccontextmanager
async def relay(
    database_url: str,
    nats_url: str,
    publisher: Callable[[EventStream], Publisher] = lambda stream: stream,
    stream: type[EventStream] = EventStream,
    *,
    keeps_all: bool = True,
    ring: GetKeyRing = get_ring,
) -> AsyncIterator[RunningRelay]:
    """Run a relay whose stream is decorated by `publisher`."""
    engine = create_engine(database_url, session=session_settings(RELAY_ROLE))
    async with await connect(nats_url, "relay", ring) as connection:
        events = stream(connection, keeps_all=keeps_all)
        outbox = Outbox(engine)
        running = RunningRelay(Relay(outbox, events, publisher(events)), outbox, events, connection)
        try:
            yield running
        finally:
            await running.stop()
            await engine.dispose()


async def read_identity(connection: Connection) -> StreamIdentity:
    identity = await read_stream_identity(connection.js)
    assert identity is not None
    return identity


async def wait_until_complete(connection: Connection, other_than: str = "") -> StreamIdentity:
    """Wait for a complete stream whose epoch is not `other_than`, and return its identity."""

    identity: StreamIdentity | None = None

    async def is_complete() -> bool:
        nonlocal identity
        identity = await read_stream_identity(connection.js)
        return identity is not None and identity.complete and identity.epoch != other_than

    await until(is_complete, 60)
    assert identity is not None
    return identity


async def read_stream(connection: Connection) -> EventsBySequence:
    """Return the events of the stream, without foreign messages."""
    stream = await read_identity(connection)
    reader = await StreamReader.open(connection, stream.epoch, 1)
    events: EventsBySequence = {}
    read = 0
    async with asyncio.timeout(20):
        while read < stream.messages:
            messages = await reader.read_batch(1_000, 5)
            read += len(messages)
            decoded = await connection.feed.decode_at(messages, stream.epoch)
            for message, event in zip(messages, decoded, strict=True):
                if event is not None:
                    events[message.sequence] = event
    await reader.close()
    return events


async def assert_whole(connection: Connection, writer: Writer) -> EventsBySequence:
    """Assert that the stream has each committed event once, and those of each aggregate in order."""
    events = await read_stream(connection)
    positions = sorted(event.position for event in events.values())
    committed = [row[0] for row in await writer.query("SELECT position FROM events ORDER BY position")]
    assert positions == committed
    versions: dict[str, list[int]] = defaultdict(list)
    for _sequence, event in sorted(events.items()):
        versions[event.stream].append(event.version)
    for stream, published in versions.items():
        assert published == list(range(1, len(published) + 1)), stream
    marked = await writer.query("SELECT position, sequence, epoch FROM outbox WHERE sequence IS NOT NULL")
    epoch = (await read_identity(connection)).epoch
    for position, sequence, marked_epoch in marked:
        assert (events[sequence].position, str(marked_epoch)) == (position, epoch)
    return events
