"""WatchCheque and WatchAccountCheques of a query server process, on a read model that changes."""

import asyncio
import random
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from typing import Any

import grpc
import jwt
import msgspec
import pytest

from devstack.servers import Valkey
from devstack.tcp_ports import free_port
from query_server import watches
from query_server.change_notifications import ChangeNotifications
from runtime.redis.address import RedisAddress
from tests.integration.query.test_query_server import (
    KEY,
    QueryServer,
    bearer,
    is_not_serving,
    jwks,
    run_server,
)
from tests.support.harness.freshness import make_freshness
from tests.support.harness.keys import mint_token
from tests.support.harness.read_model import INCARNATION, ReadModel, read_model
from tests.support.harness.rpc_failure import rpc_failure
from tests.support.harness.scraper import scrape
from tests.support.harness.waiting import until
from tests.support.ledger import queries as ledger
from tests.support.ledger.stored_views import CHEQUE, CHEQUES, cheque
from tests.support.ledger.stubs import queries, types

__all__ = ["jwks"]
FEED = CHEQUE.change_feed("account", "a-1")
TIMEOUT = 30.0
"""Seconds for a server's start, and for the next response of a watch."""


@pytest.fixture
async def model(model: ReadModel) -> ReadModel:
    """The read model with the build of a projector."""
    await set_build(model, "first")
    return model


@pytest.fixture(scope="module")
async def process(redis_server: Valkey, jwks: Path) -> AsyncIterator[QueryServer]:
    async with run_server(redis_server.url, jwks) as process:
        yield process


@pytest.fixture
async def server(process: QueryServer, model: ReadModel) -> QueryServer:
    await until(process.is_serving, TIMEOUT)
    return process


@pytest.fixture
async def own_server(redis_url: str, model: ReadModel, jwks: Path) -> AsyncIterator[QueryServer]:
    """A server that the test may stop."""
    async with run_server(redis_url, jwks) as server:
        await until(server.is_serving, TIMEOUT)
        yield server


async def set_build(model: ReadModel, name: str, incarnation: str = INCARNATION) -> None:
    """Begin another build, already caught up; as always, it has an id that no build had before."""
    await model.redis.set(CHEQUE.build, f"{incarnation}/{name}-{secrets.token_hex(4)}")
    await model.mark_ready(incarnation)


async def change(model: ReadModel, *cheques: Any) -> None:
    """Write cheques and publish a notification, as the projector does."""
    await model.put(*cheques)
    for view in cheques:
        last: Any = await model.redis.zrange(FEED, -1, -1, withscores=True)
        await model.redis.zadd(FEED, {view.cheque_id: last[0][1] + 1 if last else 1})
    message = ([view.cheque_id for view in cheques], [FEED])
    await model.redis.publish(CHEQUE.change_channel, msgspec.msgpack.encode(message))


def watch(server: QueryServer, resume_token: str = "", cheque_id: str = "c-1", **options: Any) -> Any:
    request = queries.WatchChequeRequest(cheque_id=cheque_id, resume_token=resume_token)
    return server.queries.WatchCheque(request, **{"metadata": bearer()} | options)


def watch_account(server: QueryServer, resume_token: str = "") -> Any:
    request = queries.WatchAccountChequesRequest(account_id="a-1", resume_token=resume_token)
    return server.queries.WatchAccountCheques(request, metadata=bearer())


async def read(call: Any) -> Any:
    response = await asyncio.wait_for(call.read(), TIMEOUT)
    assert response is not grpc.aio.EOF
    return response


async def read_versions(call: Any, count: int) -> list[tuple[str, int]]:
    views = [(await read(call)).cheque for _ in range(count)]
    return [(view.cheque_id, view.version) for view in views]


async def read_end(call: Any) -> tuple[grpc.StatusCode, str]:
    """Read to the end of a call; return its status and reason."""

    async def drain() -> None:
        while await call.read() is not grpc.aio.EOF:
            pass

    failure = await rpc_failure(asyncio.wait_for(drain(), TIMEOUT))
    return failure.code, failure.reason


async def test_a_view_is_sent_at_once_and_after_every_change(server: QueryServer, model: ReadModel) -> None:
    await change(model, cheque("c-1", version=1))
    call = watch(server)
    assert await read_versions(call, 1) == [("c-1", 1)]
    await change(model, cheque("c-2", version=7))
    await change(model, cheque("c-1", version=2))
    assert await read_versions(call, 1) == [("c-1", 2)]


async def test_versions_rise_through_a_burst_and_the_last_arrives(
    server: QueryServer, model: ReadModel
) -> None:
    await change(model, cheque("c-1", version=1))
    call = watch(server)
    writing = asyncio.create_task(_write_burst(model, 1000))
    versions = [0]
    while versions[-1] < 1000:
        versions.append((await read(call)).cheque.version)
    await writing
    assert versions == sorted(set(versions))


async def _write_burst(model: ReadModel, last: int) -> None:
    for version in range(2, last + 1):
        await change(model, cheque("c-1", version=version))


async def test_a_resumed_watch_sends_nothing_until_a_change(server: QueryServer, model: ReadModel) -> None:
    await change(model, cheque("c-1", version=3))
    token = (await read(watch(server))).resume_token
    call = watch(server, token)
    waiting = asyncio.create_task(read(call))
    await until(lambda: _make_round_trip(server))
    await change(model, cheque("c-1", version=4))
    assert (await waiting).cheque.version == 4


async def _make_round_trip(server: QueryServer) -> bool:
    """Return after the server has processed all earlier calls on the channel."""
    return bool(await server.is_serving())


async def test_a_token_of_another_build_starts_from_the_current_state(
    server: QueryServer, model: ReadModel
) -> None:
    await change(model, cheque("c-1", version=3))
    token = (await read(watch(server))).resume_token
    account_token = (await read(watch_account(server))).resume_token
    await set_build(model, "second")
    assert await read_versions(watch(server, token), 1) == [("c-1", 3)]
    assert await read_versions(watch_account(server, account_token), 1) == [("c-1", 3)]


async def test_a_token_of_another_watch_is_refused(server: QueryServer, model: ReadModel) -> None:
    await change(model, cheque("c-1", version=3), cheque("c-2"))
    token = (await read(watch(server))).resume_token
    failure = (grpc.StatusCode.INVALID_ARGUMENT, "RESUME_TOKEN_INVALID")
    for foreign in ("x", "ä", "AAAA", token[:-4], token + "AAAA"):
        assert await read_end(watch(server, foreign)) == failure
    assert await read_end(watch(server, token, "c-2")) == failure
    assert await read_end(watch_account(server, token)) == failure


async def test_a_missing_view_is_not_found(server: QueryServer, model: ReadModel) -> None:
    assert await read_end(watch(server)) == (grpc.StatusCode.NOT_FOUND, "CHEQUE_NOT_FOUND")


async def test_an_archived_view_is_named_as_such(server: QueryServer, model: ReadModel) -> None:
    await model.put_tombstone("c-1", 3)
    assert await read_end(watch(server)) == (grpc.StatusCode.NOT_FOUND, "VIEW_ARCHIVED")


async def test_a_watcher_of_a_view_that_is_archived_goes_on_when_it_is_restored(
    server: QueryServer, model: ReadModel
) -> None:
    await change(model, cheque("c-1", version=3))
    open_call = watch(server)
    token = (await read(open_call)).resume_token
    await model.put_tombstone("c-1", 3)
    calls = [asyncio.create_task(read(call)) for call in (open_call, watch(server, token))]
    await until(lambda: _make_round_trip(server))
    await change(model, cheque("c-2"))  # notifies of another view
    await until(lambda: _make_round_trip(server))
    assert not any(call.done() for call in calls)
    await model.redis.hdel(CHEQUE.key("c-1"), "archived")
    await change(model, cheque("c-1", version=4))
    assert [(await call).cheque.version for call in calls] == [4, 4]


async def test_watches_are_refused_during_a_rebuild(server: QueryServer, model: ReadModel) -> None:
    await model.mark_rebuilding()
    rebuilding = (grpc.StatusCode.UNAVAILABLE, "VIEW_REBUILDING")
    assert await read_end(watch(server)) == rebuilding
    assert await read_end(watch_account(server)) == rebuilding


@pytest.mark.parametrize("incarnation", [INCARNATION, "another"])
async def test_a_watch_ends_with_its_build(server: QueryServer, model: ReadModel, incarnation: str) -> None:
    await change(model, cheque("c-1", version=3))
    calls = [watch(server), watch_account(server)]
    for call in calls:
        await read(call)
    await set_build(model, "second", incarnation)
    for call in calls:
        assert await read_end(call) == (grpc.StatusCode.UNAVAILABLE, "VIEW_REBUILDING")


async def test_a_watch_of_an_empty_feed_waits(server: QueryServer, model: ReadModel) -> None:
    call = watch_account(server)
    waiting = asyncio.create_task(read_versions(call, 1))
    await until(lambda: _make_round_trip(server))
    await change(model, cheque("c-1"))
    assert await waiting == [("c-1", 1)]


async def test_the_views_of_a_feed_come_in_the_order_of_their_changes(
    server: QueryServer, model: ReadModel
) -> None:
    await change(model, *(cheque(f"c-{n}") for n in range(1, 121)), cheque("c-1", version=2))
    call = watch_account(server)
    responses = [await read(call) for _ in range(120)]
    assert [response.cheque.cheque_id for response in responses] == [
        *(f"c-{n}" for n in range(2, 121)),
        "c-1",
    ]
    await change(model, cheque("c-5", version=2))
    assert await read_versions(call, 1) == [("c-5", 2)]
    resumed = watch_account(server, responses[-3].resume_token)
    assert await read_versions(resumed, 3) == [("c-120", 1), ("c-1", 2), ("c-5", 2)]


async def test_the_last_change_arrives_after_a_restart_of_redis(own_redis: Valkey, jwks: Path) -> None:
    async with read_model(own_redis.url, CHEQUES) as model:
        await set_build(model, "first")
        await change(model, cheque("c-1", version=1))
        async with run_server(own_redis.url, jwks) as server:
            await until(server.is_serving, TIMEOUT)
            calls = [watch(server), watch_account(server)]
            for call in calls:
                assert await read_versions(call, 1) == [("c-1", 1)]
            await own_redis.kill()
            await own_redis.start()
            await model.redis.connection_pool.disconnect()
            await change(model, cheque("c-1", version=2))
            for call in calls:
                assert await read_versions(call, 1) == [("c-1", 2)]


async def test_the_last_change_arrives_after_a_freeze_of_redis(own_redis: Valkey, jwks: Path) -> None:
    async with read_model(own_redis.url, CHEQUES) as model:
        await set_build(model, "first")
        await change(model, cheque("c-1", version=1))
        async with run_server(own_redis.url, jwks) as server:
            await until(server.is_serving, TIMEOUT)
            calls = [watch(server), watch_account(server)]
            for call in calls:
                assert await read_versions(call, 1) == [("c-1", 1)]
            own_redis.child.freeze()
            await until(lambda: is_not_serving(server), TIMEOUT)
            own_redis.child.thaw()
            await change(model, cheque("c-1", version=2))
            for call in calls:
                assert await read_versions(call, 1) == [("c-1", 2)]


async def test_a_stopping_process_ends_watches_and_completes_unary_calls(
    own_server: QueryServer, model: ReadModel
) -> None:
    await change(model, cheque("c-1"))
    call = watch(own_server)
    await read(call)
    token = _make_token("c-1", 2)
    unary = own_server.queries.GetCheque(
        queries.GetChequeRequest(cheque_id="c-1", at_least_as_fresh=token), metadata=bearer(), timeout=5
    )
    await until(lambda: _make_round_trip(own_server))
    own_server.process.send_signal(signal.SIGTERM)
    assert await read_end(call) == (grpc.StatusCode.UNAVAILABLE, "STOPPING")
    await change(model, cheque("c-1", version=2))
    assert (await unary).cheque.version == 2


def _make_token(cheque_id: str, version: int) -> str:
    return mint_token(INCARNATION, {f"ledger.cheque.{cheque_id}": version})


async def test_a_watch_beyond_the_limit_is_refused(model: ReadModel, redis_url: str, jwks: Path) -> None:
    await change(model, cheque("c-1"))
    options = {
        "DIPTYCH_MAX_WATCHES_PER_CALLER": "1",
        "DIPTYCH_METRICS_ADDRESS": f"127.0.0.1:{(port := free_port())}",
    }

    async def shows_open(count: int) -> bool:
        return (await scrape(port)).values("diptych_watches_open") == [count]

    async with run_server(redis_url, jwks, **options) as server:
        await until(server.is_serving, TIMEOUT)
        await until(lambda: shows_open(0))
        call = watch(server)
        await read(call)
        await until(lambda: shows_open(1))
        refused = await rpc_failure(watch(server).read())
        assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHES")
        assert refused.metadata == {"of": "one caller", "maximum": "1"}
        assert refused.retry_after
        call.cancel()
        await until(lambda: shows_open(0))

        async def is_served() -> bool:
            try:
                return bool(await watch(server).read())
            except grpc.aio.AioRpcError:
                return False

        await until(is_served)


async def test_a_watch_ends_when_its_callers_token_expires(server: QueryServer, model: ReadModel) -> None:
    await change(model, cheque("c-1"))
    claims = {"sub": "t", "scope": "ledger.read", "iss": "diptych-local", "aud": "diptych"}
    token = jwt.encode(
        claims | {"iat": time() - 60, "exp": time() - 3}, KEY, "EdDSA", {"kid": "k"}
    )  # 5 s of clock skew remain
    call = watch(server, metadata=(("authorization", f"Bearer {token}"),))
    await read(call)
    assert await read_end(call) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")


async def test_evicted_views_come_first_and_no_change_is_missed(
    model: ReadModel, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "MAX_CHANGE_FEED_SIZE", 30)
    monkeypatch.setattr(watches, "EVICTION_MARGIN", 3)
    monkeypatch.setattr(watches, "BATCH_SIZE", 10)
    await change(model, *(cheque(f"c-{n}", written=n) for n in range(1, 101)))
    await model.redis.zremrangebyrank(FEED, 0, -31)
    async with run_notifications(model, redis_url) as notifications:
        stream = watches.watch_feed(
            watches.Watch(model.views, notifications, make_freshness(model.views)),
            FEED,
            CHEQUE.index("account", "a-1"),
        )
        first = await anext(stream)
        await change(model, cheque("c-60", version=2, written=60))  # changes while the index is read
        await model.redis.zremrangebyrank(FEED, 0, -31)
        responses = [first, *[await anext(stream) for _ in range(99)]]
        versions = {view.cheque_id: view.version for view in map(_parse, responses)}
        while versions["c-60"] < 2:
            view = _parse(await anext(stream))
            versions[view.cheque_id] = view.version
        assert versions == {f"c-{n}": 1 for n in range(1, 101)} | {"c-60": 2}
        assert notifications.listeners == 1
        await stream.aclose()
        assert notifications.listeners == 0


def _parse(response: tuple[bytes, str]) -> Any:
    return types.Cheque.FromString(response[0])


@asynccontextmanager
async def run_notifications(model: ReadModel, redis_url: str) -> AsyncIterator[ChangeNotifications]:
    notifications, stopping = (
        ChangeNotifications(RedisAddress(redis_url), model.reader, [CHEQUE]),
        asyncio.Event(),
    )
    running = asyncio.create_task(notifications.run(stopping))
    try:
        yield notifications
    finally:
        stopping.set()
        await running


async def test_changes_that_redis_has_lost_are_sent_again(model: ReadModel, redis_url: str) -> None:
    await change(model, cheque("c-1"), cheque("c-2"), cheque("c-3"))
    async with run_notifications(model, redis_url) as notifications:
        stream = watches.watch_feed(
            watches.Watch(model.views, notifications, make_freshness(model.views)), FEED, ""
        )
        tokens = [(await anext(stream))[1] for _ in range(3)]
        await stream.aclose()
        await model.redis.zremrangebyrank(FEED, -2, -1)  # as after a failover to a replica that lags
        resumed = watches.watch_feed(
            watches.Watch(model.views, notifications, make_freshness(model.views), tokens[-1]), FEED, ""
        )
        assert _parse(await anext(resumed)).cheque_id == "c-1"
        await resumed.aclose()


async def test_a_server_that_does_not_speak_redis_tried_again(model: ReadModel) -> None:
    calls: asyncio.Queue[None] = asyncio.Queue()

    async def send_nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.put_nowait(None)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(send_nonsense, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener, run_notifications(model, f"redis://127.0.0.1:{port}"):
        for _ in range(2):
            await asyncio.wait_for(calls.get(), TIMEOUT)


async def test_a_cancelled_watcher_is_removed(model: ReadModel, redis_url: str) -> None:
    await change(model, cheque("c-1"))
    async with run_notifications(model, redis_url) as notifications:
        watched = watches.Watch(model.views, notifications, make_freshness(model.views))
        stream = watches.watch_view(watched, "c-1", ledger.CHEQUE_NOT_FOUND)
        await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        assert notifications.listeners == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert notifications.listeners == 0


async def open_watch(server: QueryServer, cheque_id: str) -> Any:
    """Open a watch and read its first response, retrying as callers should when gRPC sheds load."""
    while True:
        call = watch(server, cheque_id=cheque_id)
        try:
            await read(call)
            return call
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.CANCELLED
        await asyncio.sleep(random.uniform(0.1, 0.5))


async def test_thousands_of_watchers_each_receive_their_own_changes(
    server: QueryServer, model: ReadModel
) -> None:
    cheques = [cheque(f"c-{n}") for n in range(1_000)]
    await change(model, *cheques)
    calls = await asyncio.gather(*(open_watch(server, view.cheque_id) for view in cheques for _ in range(2)))
    await change(model, cheque("c-7", version=2))
    assert await read_versions(calls[14], 1) == await read_versions(calls[15], 1) == [("c-7", 2)]
    final_views = [cheque(view.cheque_id, version=3) for view in cheques]
    await change(model, *final_views)
    assert {(await read(call)).cheque.version for call in calls} == {3}
    for call in calls:
        call.cancel()


async def test_a_watch_begins_with_the_age_of_its_first_state(server: QueryServer, model: ReadModel) -> None:
    now = int(time() * 1000)
    await model.set_as_of(now)
    await change(model, cheque("c-1"), cheque("c-2"))
    record = b'{"stale_since": %d}' % (now - 600_000)
    await model.redis.hset(CHEQUE.key("c-1"), "parked", record)
    await model.redis.hset(CHEQUE.parked, "c-1", record)
    await model.redis.zadd(CHEQUE.parked_since, {"c-1": now - 600_000})

    async def has_age(call: Any, low: float, high: float) -> bool:
        await read(call)
        age = dict(await call.initial_metadata()).get("diptych-staleness-ms")
        call.cancel()
        return age is not None and low <= int(age) / 1000 < high

    await until(lambda: has_age(watch(server), 600, 660))
    await until(lambda: has_age(watch(server, cheque_id="c-2"), 0, 60))
    await until(lambda: has_age(watch_account(server), 600, 660))
