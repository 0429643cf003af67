"""WatchOrder and WatchCustomerOrders of a query server process: what a caller sees of an order that moves."""

import asyncio
import random
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
from diptych.ordering.v1.query_service_pb2 import (
    GetOrderRequest,
    WatchCustomerOrdersRequest,
    WatchOrderRequest,
)
from diptych.ordering.v1.types_pb2 import Order

from contracts import consistency_tokens
from devstack.servers import Valkey
from query_server import watches
from query_server.change_feed import ChangeFeed
from query_server.redis_address import RedisAddress
from runtime.grpc.rpc_error import RpcError
from tests.integration.query.test_query_server import (
    KEY,
    Running,
    bearer,
    jwks,
    not_serving,
    running,
)
from tests.support.harness.read_model import (
    INCARNATION,
    ORDERS,
    ReadModel,
    order,
    read_model,
    until,
)
from tests.support.harness.rpc_failure import rpc_failure

__all__ = ["jwks"]
CHANGES = ORDERS.change_feed("customer", "c-1")
PATIENCE = 30.0


@pytest.fixture
async def model(redis_url: str) -> AsyncIterator[ReadModel]:
    async with read_model(redis_url) as model:
        await fill(model, "first")
        yield model


@pytest.fixture(scope="module")
async def process(redis_server: Valkey, jwks: Path) -> AsyncIterator[Running]:
    async with running(redis_server.url, jwks) as process:
        yield process


@pytest.fixture
async def server(process: Running, model: ReadModel) -> Running:
    await until(process.serving, PATIENCE)
    return process


@pytest.fixture
async def own_server(redis_url: str, model: ReadModel, jwks: Path) -> AsyncIterator[Running]:
    """One to stop."""
    async with running(redis_url, jwks) as server:
        await until(server.serving, PATIENCE)
        yield server


async def fill(model: ReadModel, name: str, incarnation: str = INCARNATION) -> None:
    """Begin another filling, and be done with it."""
    await model.redis.set(ORDERS.build, f"{incarnation}/{name}")
    await model.complete(incarnation)


async def change(model: ReadModel, *orders: Order) -> None:
    """Write orders and announce them, as the projector does."""
    await model.put(*orders)
    for view in orders:
        top: Any = await model.redis.zrange(CHANGES, -1, -1, withscores=True)
        await model.redis.zadd(CHANGES, {view.order_id: top[0][1] + 1 if top else 1})
    message = ([view.order_id for view in orders], [CHANGES])
    await model.redis.publish(ORDERS.change_channel, msgspec.msgpack.encode(message))


def watch(server: Running, resume_token: str = "", order_id: str = "o-1", **options: Any) -> Any:
    request = WatchOrderRequest(order_id=order_id, resume_token=resume_token)
    return server.queries.WatchOrder(request, **{"metadata": bearer()} | options)


def watch_customer(server: Running, resume_token: str = "") -> Any:
    request = WatchCustomerOrdersRequest(customer_id="c-1", resume_token=resume_token)
    return server.queries.WatchCustomerOrders(request, metadata=bearer())


async def read(call: Any) -> Any:
    answer = await asyncio.wait_for(call.read(), PATIENCE)
    assert answer is not grpc.aio.EOF
    return answer


async def seen(call: Any, count: int) -> list[tuple[str, int]]:
    answers = [(await read(call)).order for _ in range(count)]
    return [(answer.order_id, answer.version) for answer in answers]


async def ended(call: Any) -> tuple[grpc.StatusCode, str]:
    async def drained() -> None:
        while await call.read() is not grpc.aio.EOF:
            pass

    end = await rpc_failure(asyncio.wait_for(drained(), PATIENCE))
    return end.code, end.reason


async def test_an_order_is_told_at_once_and_whenever_it_has_changed(
    server: Running, model: ReadModel
) -> None:
    await change(model, order("o-1", version=1))
    call = watch(server)
    assert await seen(call, 1) == [("o-1", 1)]
    await change(model, order("o-2", version=7))
    await change(model, order("o-1", version=2))
    assert await seen(call, 1) == [("o-1", 2)]


async def test_versions_rise_through_a_burst_and_the_last_arrives(server: Running, model: ReadModel) -> None:
    await change(model, order("o-1", version=1))
    call = watch(server)
    writing = asyncio.create_task(_burst(model, 1000))
    versions = [0]
    while versions[-1] < 1000:
        versions.append((await read(call)).order.version)
    await writing
    assert versions == sorted(set(versions))


async def _burst(model: ReadModel, last: int) -> None:
    for version in range(2, last + 1):
        await change(model, order("o-1", version=version))


async def test_a_resumed_watch_says_nothing_until_something_changes(
    server: Running, model: ReadModel
) -> None:
    await change(model, order("o-1", version=3))
    token = (await read(watch(server))).resume_token
    call = watch(server, token)
    waiting = asyncio.create_task(read(call))
    await until(lambda: _waits(server))
    await change(model, order("o-1", version=4))
    assert (await waiting).order.version == 4


async def _waits(server: Running) -> bool:
    """Make a round trip behind the calls before."""
    return bool(await server.serving())


async def test_a_token_of_another_filling_begins_with_the_order_again(
    server: Running, model: ReadModel
) -> None:
    await change(model, order("o-1", version=3))
    token = (await read(watch(server))).resume_token
    customers = (await read(watch_customer(server))).resume_token
    await fill(model, "second")
    assert await seen(watch(server, token), 1) == [("o-1", 3)]
    assert await seen(watch_customer(server, customers), 1) == [("o-1", 3)]


async def test_a_token_that_is_not_of_this_watch_is_refused(server: Running, model: ReadModel) -> None:
    await change(model, order("o-1", version=3), order("o-2"))
    token = (await read(watch(server))).resume_token
    failure = (grpc.StatusCode.INVALID_ARGUMENT, "RESUME_TOKEN_INVALID")
    for foreign in ("x", "ä", "AAAA", token[:-4], token + "AAAA"):
        assert await ended(watch(server, foreign)) == failure
    assert await ended(watch(server, token, "o-2")) == failure
    assert await ended(watch_customer(server, token)) == failure


async def test_an_order_that_is_not_there_is_not_found(server: Running, model: ReadModel) -> None:
    assert await ended(watch(server)) == (grpc.StatusCode.NOT_FOUND, "ORDER_NOT_FOUND")


async def test_nothing_is_watched_while_the_view_is_rebuilt(server: Running, model: ReadModel) -> None:
    await model.begin_rebuilding()
    rebuilding = (grpc.StatusCode.UNAVAILABLE, "VIEW_REBUILDING")
    assert await ended(watch(server)) == rebuilding
    assert await ended(watch_customer(server)) == rebuilding


@pytest.mark.parametrize("incarnation", [INCARNATION, "another"])
async def test_a_watch_ends_with_its_filling(server: Running, model: ReadModel, incarnation: str) -> None:
    await change(model, order("o-1", version=3))
    calls = [watch(server), watch_customer(server)]
    for call in calls:
        await read(call)
    await fill(model, "second", incarnation)
    for call in calls:
        assert await ended(call) == (grpc.StatusCode.UNAVAILABLE, "VIEW_REBUILDING")


async def test_a_customer_without_orders_is_waited_for(server: Running, model: ReadModel) -> None:
    call = watch_customer(server)
    waiting = asyncio.create_task(seen(call, 1))
    await until(lambda: _waits(server))
    await change(model, order("o-1"))
    assert await waiting == [("o-1", 1)]


async def test_a_customers_orders_come_in_the_order_in_which_they_changed(
    server: Running, model: ReadModel
) -> None:
    await change(model, *(order(f"o-{n}") for n in range(1, 121)), order("o-1", version=2))
    call = watch_customer(server)
    first = [await read(call) for _ in range(120)]
    assert [each.order.order_id for each in first] == [*(f"o-{n}" for n in range(2, 121)), "o-1"]
    await change(model, order("o-5", version=2))
    assert await seen(call, 1) == [("o-5", 2)]
    resumed = watch_customer(server, first[-3].resume_token)
    assert await seen(resumed, 3) == [("o-120", 1), ("o-1", 2), ("o-5", 2)]


async def test_the_last_change_arrives_though_redis_was_away(own_redis: Valkey, jwks: Path) -> None:
    async with read_model(own_redis.url) as model:
        await fill(model, "first")
        await change(model, order("o-1", version=1))
        async with running(own_redis.url, jwks) as server:
            await until(server.serving, PATIENCE)
            calls = [watch(server), watch_customer(server)]
            for call in calls:
                assert await seen(call, 1) == [("o-1", 1)]
            await own_redis.kill()
            await own_redis.start()
            await model.redis.connection_pool.disconnect()
            await change(model, order("o-1", version=2))
            for call in calls:
                assert await seen(call, 1) == [("o-1", 2)]


async def test_the_last_change_arrives_though_redis_was_frozen(own_redis: Valkey, jwks: Path) -> None:
    async with read_model(own_redis.url) as model:
        await fill(model, "first")
        await change(model, order("o-1", version=1))
        async with running(own_redis.url, jwks) as server:
            await until(server.serving, PATIENCE)
            calls = [watch(server), watch_customer(server)]
            for call in calls:
                assert await seen(call, 1) == [("o-1", 1)]
            own_redis.child.freeze()
            await until(lambda: not_serving(server), PATIENCE)
            own_redis.child.thaw()
            await change(model, order("o-1", version=2))
            for call in calls:
                assert await seen(call, 1) == [("o-1", 2)]


async def test_a_watch_ends_when_the_process_stops_and_unary_calls_do_not(
    own_server: Running, model: ReadModel
) -> None:
    await change(model, order("o-1"))
    call = watch(own_server)
    await read(call)
    token = _token_of("o-1", 2)
    unary = own_server.queries.GetOrder(
        GetOrderRequest(order_id="o-1", at_least_as_fresh=token), metadata=bearer(), timeout=5
    )
    await until(lambda: _waits(own_server))
    own_server.process.send_signal(signal.SIGTERM)
    assert await ended(call) == (grpc.StatusCode.UNAVAILABLE, "STOPPING")
    await change(model, order("o-1", version=2))
    assert (await unary).order.version == 2


def _token_of(order_id: str, version: int) -> str:
    return consistency_tokens.mint(INCARNATION, {f"ordering.order.{order_id}": version})


async def test_a_watch_ends_when_its_callers_token_expires(server: Running, model: ReadModel) -> None:
    await change(model, order("o-1"))
    claims = {"sub": "t", "scope": "ordering.read", "iss": "diptych-local", "aud": "diptych"}
    token = jwt.encode(claims | {"exp": time() - 3}, KEY, "EdDSA", {"kid": "k"})  # 5 s of clock skew remain
    call = watch(server, metadata=(("authorization", f"Bearer {token}"),))
    await read(call)
    assert await ended(call) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")


async def test_a_customers_orders_beyond_the_set_come_first_and_none_is_missed(
    model: ReadModel, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "CHANGES_KEPT", 30)
    monkeypatch.setattr(watches, "SLACK", 3)
    monkeypatch.setattr(watches, "PAGE", 10)
    await change(model, *(order(f"o-{n}", placed=n) for n in range(1, 101)))
    await model.redis.zremrangebyrank(CHANGES, 0, -31)
    async with hearing(model, redis_url) as change_feed:
        stream = watches.several(
            watches.Watch(model.orders, change_feed), CHANGES, ORDERS.index("customer", "c-1")
        )
        first = await anext(stream)
        await change(model, order("o-60", version=2, placed=60))  # moves on while the others are read
        await model.redis.zremrangebyrank(CHANGES, 0, -31)
        answers = [first, *[await anext(stream) for _ in range(99)]]
        versions = {view.order_id: view.version for view in map(_parsed, answers)}
        while versions["o-60"] < 2:
            moved = _parsed(await anext(stream))
            versions[moved.order_id] = moved.version
        assert versions == {f"o-{n}": 1 for n in range(1, 101)} | {"o-60": 2}
        assert change_feed.watchers == 1
        await stream.aclose()
        assert change_feed.watchers == 0


def _parsed(answer: tuple[bytes, str]) -> Order:
    return Order.FromString(answer[0])


@asynccontextmanager
async def hearing(model: ReadModel, redis_url: str) -> AsyncIterator[ChangeFeed]:
    change_feed, stopping = ChangeFeed(RedisAddress(redis_url), model.reader, [ORDERS]), asyncio.Event()
    running = asyncio.create_task(change_feed.run(stopping))
    try:
        yield change_feed
    finally:
        stopping.set()
        await running


async def test_what_is_lost_with_redis_is_told_again(model: ReadModel, redis_url: str) -> None:
    await change(model, order("o-1"), order("o-2"), order("o-3"))
    async with hearing(model, redis_url) as change_feed:
        everything = watches.several(watches.Watch(model.orders, change_feed), CHANGES, "")
        tokens = [(await anext(everything))[1] for _ in range(3)]
        await everything.aclose()
        await model.redis.zremrangebyrank(CHANGES, -2, -1)  # as a replica that was behind takes over
        again = watches.several(watches.Watch(model.orders, change_feed, tokens[-1]), CHANGES, "")
        assert _parsed(await anext(again)).order_id == "o-1"
        await again.aclose()


async def test_whatever_speaks_no_redis_is_left_and_called_again(model: ReadModel) -> None:
    calls: asyncio.Queue[None] = asyncio.Queue()

    async def nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.put_nowait(None)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    wait_until_subscribed = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    port = wait_until_subscribed.sockets[0].getsockname()[1]
    async with wait_until_subscribed, hearing(model, f"redis://127.0.0.1:{port}"):
        for _ in range(2):
            await asyncio.wait_for(calls.get(), PATIENCE)


async def test_a_watcher_that_leaves_is_forgotten(model: ReadModel, redis_url: str) -> None:
    await change(model, order("o-1"))
    async with hearing(model, redis_url) as change_feed:
        missing = RpcError("INTERNAL", "it is there")
        stream = watches.one(watches.Watch(model.orders, change_feed), "o-1", missing)
        await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        assert change_feed.watchers == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert change_feed.watchers == 0


async def begun(server: Running, order_id: str) -> Any:
    """Begin a watch as callers should: too many at once are turned away, and come back."""
    while True:
        call = watch(server, order_id=order_id)
        try:
            await read(call)
            return call
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.CANCELLED
        await asyncio.sleep(random.uniform(0.1, 0.5))


async def test_thousands_watch_and_each_hears_of_its_own(server: Running, model: ReadModel) -> None:
    orders = [order(f"o-{n}") for n in range(1_000)]
    await change(model, *orders)
    calls = await asyncio.gather(*(begun(server, view.order_id) for view in orders for _ in range(2)))
    await change(model, order("o-7", version=2))
    assert await seen(calls[14], 1) == await seen(calls[15], 1) == [("o-7", 2)]
    last = [order(view.order_id, version=3) for view in orders]
    await change(model, *last)
    assert {(await read(call)).order.version for call in calls} == {3}
    for call in calls:
        call.cancel()
