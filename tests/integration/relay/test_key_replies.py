"""The relay sends readers of the stream the keys of persons, wrapped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import pytest
from diptych.ordering.v1.events_pb2 import OrderCancelled
from msgspec.structs import replace

from command_server.postgres.event_store import session_settings
from command_server.postgres.schema import RELAY_ROLE
from command_server.relay.key_replies import create_key_replies
from contracts.envelope import RecordedEvent
from contracts.personal_data import seal
from contracts.subject_keys import KEYS_SUBJECT, RingWrapper, WrappedKey, create_keys
from runtime.jetstream import Connection, connect, relayed_keys
from runtime.postgres import create_engine
from tests.support.builders.personal_events import NAME, make_event
from tests.support.harness.keys import get_ring

ADD = "INSERT INTO subject_keys (subject, id, wrapped_by, wrapped) VALUES ('ada', $1, $2, $3)"
DESTROY = "UPDATE subject_keys SET wrapped = NULL"
WRAPPER = RingWrapper(get_ring)


@pytest.fixture
async def connection(nats_url: str) -> AsyncIterator[Connection]:
    async with await connect(nats_url, "test", get_ring) as connection:
        await connection.wait_until_connected()
        yield connection


@pytest.fixture
async def relay(database_url: str, nats_url: str) -> AsyncIterator[Connection]:
    engine = create_engine(database_url, session=session_settings(RELAY_ROLE))
    async with await connect(nats_url, "relay", get_ring) as connection:
        replies = asyncio.create_task(create_key_replies(connection, engine).run())
        yield connection
        replies.cancel()
        with suppress(asyncio.CancelledError):
            await replies
    await engine.dispose()


async def seal_event() -> tuple[WrappedKey, RecordedEvent]:
    wrapped = (await create_keys(WRAPPER, ["ada"]))[0]["ada"]
    key = (await WRAPPER.unwrap([wrapped]))[wrapped.id]
    message = OrderCancelled(order_id="o-1", customer_id="ada", reason=NAME)
    seal(message, "a.b.c", lambda _: key)
    return wrapped, replace(make_event(OrderCancelled), data=message.SerializeToString())


async def test_a_reader_waits_for_a_reply_and_opens_the_event(
    database_url: str, nats_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relayed_keys, "PAUSE", 0.01)
    wrapped, event = await seal_event()
    database = await asyncpg.connect(database_url)
    await database.execute(ADD, wrapped.id, wrapped.wrapped_by, wrapped.wrapped)
    await connection.client.subscribe(KEYS_SUBJECT, cb=forge)
    opening = asyncio.create_task(connection.subject_keys.open([event]))
    _, pending = await asyncio.wait([opening], timeout=0.1)
    assert pending
    engine = create_engine(database_url, session=session_settings(RELAY_ROLE))
    async with await connect(nats_url, "relay", get_ring) as relay:
        for subscription in list(connection.client._subs.values()):
            if subscription.subject == KEYS_SUBJECT:
                await subscription.unsubscribe()
        replies = asyncio.create_task(create_key_replies(relay, engine).run())
        (opened,) = await asyncio.wait_for(opening, 10)
        replies.cancel()
    assert OrderCancelled.FromString(opened.data).reason == NAME
    await engine.dispose()
    await database.close()


async def forge(request: object) -> None:
    """Reply as somebody who has no key of the feed."""
    await request.respond(b'{"keys": []}')  # type: ignore[attr-defined]


@pytest.mark.usefixtures("relay")
async def test_a_destroyed_key_is_one_and_an_unknown_one_is_none(
    database_url: str, connection: Connection
) -> None:
    wrapped, event = await seal_event()
    _, unknown = await seal_event()
    database = await asyncpg.connect(database_url)
    await database.execute(ADD, wrapped.id, wrapped.wrapped_by, wrapped.wrapped)
    await database.execute(DESTROY)
    first, second = await connection.subject_keys.open([event, unknown])
    assert OrderCancelled.FromString(first.data) == OrderCancelled(order_id="o-1", customer_id="ada")
    assert second == unknown
    await database.close()
