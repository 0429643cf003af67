"""A stream on a real server, and readings of it that several cursors share."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from nats.js import api

from contracts import streams
from runtime.jetstream import Connection, Cursor, Limits, SharedReader, StreamReader
from runtime.process.lifecycle import cancel_and_wait
from tests.support.harness.waiting import until

SMALL = Limits(messages=100, size=10_000, retained_messages=30, messages_ahead=20)
"""Limits that cursors exceed all the time."""
TYPES = ("a.b", "a.c", "d.e")
ALL = frozenset(range(streams.PARTITIONS))


async def make_stream(connection: Connection) -> str:
    epoch = str(uuid4())
    metadata = {
        "diptych-epoch": epoch,
        "diptych-incarnation": "i",
        "diptych-complete": "true",
        "diptych-keys": "r",
    }
    await connection.js.add_stream(
        api.StreamConfig(
            name=streams.JETSTREAM, subjects=[streams.SUBJECTS], allow_direct=True, metadata=metadata
        )
    )
    return epoch


@asynccontextmanager
async def share(
    connection: Connection, partitions: Iterable[int] = ALL, limits: Limits = SMALL
) -> AsyncIterator[SharedReader]:
    """Share a reading. `partitions` may be a set that changes meanwhile."""
    shared = SharedReader(connection, lambda: frozenset(partitions), limits=limits)
    checks = asyncio.create_task(shared.run())
    yield shared
    await cancel_and_wait(checks)


async def publish(connection: Connection, keys: Sequence[tuple[str, int]]) -> None:
    acks = [
        await connection.js.publish_async(f"diptych.events.{partition}.{stream_type}.x", b"data")
        for stream_type, partition in keys
    ]
    await asyncio.wait_for(asyncio.gather(*acks), 20)


async def count_consumers(connection: Connection) -> int:
    return len(await connection.js.consumers_info(streams.JETSTREAM))


async def until_closed(connection: Connection) -> None:
    async def is_closed() -> bool:
        return await count_consumers(connection) == 0

    await until(is_closed)


async def read(cursor: Cursor, count: int) -> list[int]:
    """Return the sequences of the next messages."""
    sequences: list[int] = []
    async with asyncio.timeout(20):
        while len(sequences) < count:
            sequences += [message.sequence for message in await cursor.read_batch(500, 1)]
    return sequences


async def wait_for_checks(shared: SharedReader, count: int) -> None:
    """Wait for checks that began after this call."""
    checks: list[object] = []

    def was_checked() -> bool:
        if not any(shared.latest_check is check for check in checks):
            checks.append(shared.latest_check)
        shared._check_due.set()
        return len(checks) > count

    await until(was_checked)


class HeldMessages:
    """Holds back what the server sends to readers, as a consumer does that lags behind the stream."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_holding = False
        self._calls: list[tuple[StreamReader, str, str, bytes, Mapping[str, str]]] = []
        self._receive = StreamReader._receive
        monkeypatch.setattr(StreamReader, "_receive", lambda *call: self._hold(*call))

    def _hold(
        self, reader: StreamReader, subject: str, reply: str, data: bytes, headers: Mapping[str, str]
    ) -> None:
        if self.is_holding and reply:
            self._calls.append((reader, subject, reply, data, headers))
        else:
            self._receive(reader, subject, reply, data, headers)

    def release(self) -> None:
        self.is_holding = False
        for call in self._calls:
            self._receive(*call)
        self._calls.clear()
