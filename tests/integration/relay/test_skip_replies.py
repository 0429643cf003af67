"""The relay tells projectors which events to skip."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import pytest

from command_server.postgres.event_store import session_settings
from command_server.postgres.schema import RELAY_ROLE
from command_server.relay.skip_replies import create_skip_replies
from contracts.skips import SKIPS_SUBJECT, SkippedEvent, SkipsReply, SkipsRequest, decode_reply, encode
from runtime.jetstream import UNREACHABLE, Connection, connect
from runtime.postgres import create_engine
from tests.support.harness.keys import get_ring
from tests.support.harness.waiting import until

ADD = """
INSERT INTO skipped_events (consumer, stream, version, reason, subject)
SELECT consumer, 'a.b.c', version, 'r', 'ada'
FROM unnest(ARRAY['projection x', 'projection y', 'saga x']) AS c(consumer),
  generate_series(1, $1) AS v(version)
ORDER BY version
"""


@pytest.fixture
async def connection(nats_url: str) -> AsyncIterator[Connection]:
    async with await connect(nats_url, "test", get_ring) as connection:
        await connection.wait_until_connected()
        yield connection


@pytest.fixture
async def relay(database_url: str, nats_url: str) -> AsyncIterator[Connection]:
    engine = create_engine(database_url, session=session_settings(RELAY_ROLE))
    async with await connect(nats_url, "relay", get_ring) as connection:
        replies = asyncio.create_task(create_skip_replies(connection, engine).run())
        yield connection
        replies.cancel()
        with suppress(asyncio.CancelledError):
            await replies
    await engine.dispose()


async def ask(connection: Connection, projection: str, after: int = 0) -> SkipsReply | None:
    request = encode(SkipsRequest(projection, after))
    try:
        reply = await connection.client.request(SKIPS_SUBJECT, request, timeout=1)
        return decode_reply(connection.feed.verify_reply(reply))
    except UNREACHABLE:
        return None


async def is_answered(connection: Connection) -> bool:
    return await ask(connection, "x") is not None


async def test_it_tells_the_events_of_one_projection_page_by_page(
    database_url: str, relay: Connection, connection: Connection
) -> None:
    database = await asyncpg.connect(database_url)
    await until(lambda: is_answered(connection))
    assert await ask(connection, "x") == SkipsReply(
        str(await database.fetchval("SELECT incarnation FROM relay_state")), []
    )
    await database.execute(ADD, 1_001)
    await database.close()
    first = await ask(connection, "x")
    assert first is not None
    assert [event.version for event in first.events] == list(range(1, 1_001))
    last = await ask(connection, "x", first.events[-1].number)
    assert last is not None
    (event,) = last.events
    assert event == SkippedEvent(event.number, "a.b.c", 1_001)


async def test_it_replies_after_a_wrong_request_and_after_its_client_was_closed(
    relay: Connection, connection: Connection
) -> None:
    await until(lambda: is_answered(connection))
    await connection.client.publish(SKIPS_SUBJECT, b"\xff", reply="nobody")
    await until(lambda: is_answered(connection))
    await relay.client.close()
    await until(lambda: is_answered(connection), 10)
