"""An answer to `at_least_as_fresh` includes that write, or is none."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from diptych.ordering.v1.types_pb2 import Order

from contracts import consistency_tokens, incarnations
from query_server import freshness
from runtime.grpc.rpc_error import RpcError
from tests.support.harness.read_model import INCARNATION, ReadModel, order, read_model


@pytest.fixture
async def model(redis_url: str) -> AsyncIterator[ReadModel]:
    async with read_model(redis_url) as model:
        yield model


LATER = incarnations.after(INCARNATION)
EARLIER = str(UUID(int=1))


def token(incarnation: str = INCARNATION, **versions: int) -> str:
    """Return a token of orders: `o_1=3` is order o-1 at version 3."""
    streams = {f"ordering.order.{key.replace('_', '-')}": version for key, version in versions.items()}
    return consistency_tokens.mint(incarnation, streams)


async def fresh_order(model: ReadModel, token: str, remaining: float | None = None) -> Order:
    (data,) = await freshness.read(model.orders, token, model.orders.data_of("o-1"), remaining=remaining)
    return Order.FromString(data)


async def refused(reading: "asyncio.Future[object] | object") -> RpcError:
    with pytest.raises(RpcError) as error:
        await reading  # type: ignore[misc]
    return error.value


async def test_a_view_that_is_there_already_is_read_at_once(model: ReadModel) -> None:
    await model.put(order("o-1", version=3))
    assert (await fresh_order(model, token(o_1=3), remaining=0.0)).version == 3
    assert (await fresh_order(model, token(o_1=2), remaining=0.0)).version == 3


async def test_a_read_by_key_waits_for_the_view(model: ReadModel) -> None:
    await model.put(order("o-1", version=1))
    reading = asyncio.create_task(fresh_order(model, token(o_1=4)))
    for version in (2, 3):
        await model.put(order("o-1", version=version))
        await asyncio.sleep(0.03)
        assert not reading.done()
    await model.put(order("o-1", version=4))
    assert (await reading).version == 4


async def test_a_read_by_key_waits_for_a_view_that_is_not_there_yet(model: ReadModel) -> None:
    reading = asyncio.create_task(fresh_order(model, token(o_1=1)))
    await asyncio.sleep(0.01)
    await model.put(order("o-1"))
    assert (await reading).version == 1


async def test_every_stream_of_the_token_is_waited_for(model: ReadModel) -> None:
    await model.put(order("o-1", version=1), order("o-2", version=1))
    reading = asyncio.create_task(fresh_order(model, token(o_1=1, o_2=2)))
    await asyncio.sleep(0.03)
    assert not reading.done()
    await model.put(order("o-2", version=2))
    await reading


async def test_streams_that_the_projection_does_not_hear_are_satisfied(model: ReadModel) -> None:
    await model.put(order("o-1"))
    touched = {"ordering.order.o-1": 1, "inventory.item.i-1": 99, "ordering.orderbook.o-1": 99}
    assert await fresh_order(model, consistency_tokens.mint(INCARNATION, touched), remaining=0.0)


async def test_waiting_ends_50_ms_before_the_deadline(model: ReadModel) -> None:
    await model.put(order("o-1", version=1))
    loop = asyncio.get_running_loop()
    start = loop.time()
    error = await refused(fresh_order(model, token(o_1=2), remaining=0.3))
    assert error.reason == "VIEW_BEHIND"
    assert error.retry_after
    assert 0.24 < loop.time() - start < 0.3


async def test_waiting_without_a_deadline_ends_after_two_seconds(
    model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert freshness.WITHOUT_DEADLINE == 2.0
    monkeypatch.setattr(freshness, "WITHOUT_DEADLINE", 0.2)
    loop = asyncio.get_running_loop()
    start = loop.time()
    assert (await refused(fresh_order(model, token(o_1=1)))).reason == "VIEW_BEHIND"
    assert 0.19 < loop.time() - start < 1.0


async def test_waiting_asks_redis_seldom(model: ReadModel) -> None:
    before = (await model.redis.info("commandstats"))["cmdstat_hget"]["calls"] if await _asked(model) else 0
    await refused(fresh_order(model, token(o_1=1), remaining=0.55))
    looks = (await model.redis.info("commandstats"))["cmdstat_hget"]["calls"] - before
    assert looks / 2 < 40  # version and data each time


async def _asked(model: ReadModel) -> bool:
    return "cmdstat_hget" in await model.redis.info("commandstats")


async def test_a_token_of_an_earlier_incarnation_is_outdated(model: ReadModel) -> None:
    await model.put(order("o-1", version=9))
    assert (await refused(fresh_order(model, token(EARLIER, o_1=1)))).reason == "TOKEN_OUTDATED"


async def test_a_token_of_a_later_incarnation_waits_for_the_projectors(model: ReadModel) -> None:
    await model.put(order("o-1", version=9))
    assert (await refused(fresh_order(model, token(LATER, o_1=1)))).reason == "VIEW_REBUILDING"
    await model.complete(LATER)
    assert (await fresh_order(model, token(LATER, o_1=1))).version == 9


async def test_a_token_is_outdated_even_where_no_stream_is_heard(model: ReadModel) -> None:
    before = consistency_tokens.mint(EARLIER, {"inventory.item.i-1": 1})
    assert (await refused(fresh_order(model, before))).reason == "TOKEN_OUTDATED"


async def test_a_restore_while_waiting_is_noticed(model: ReadModel) -> None:
    reading = asyncio.create_task(fresh_order(model, token(o_1=1)))
    await asyncio.sleep(0.01)
    await model.complete(LATER)
    assert (await refused(reading)).reason == "TOKEN_OUTDATED"


async def test_while_the_projection_is_rebuilt_a_token_cannot_be_judged(model: ReadModel) -> None:
    await model.put(order("o-1", version=9))
    await model.begin_rebuilding()
    assert (await refused(fresh_order(model, token(o_1=1)))).reason == "VIEW_REBUILDING"


@pytest.mark.parametrize("garbage", ["x", "abcd", "not a token", "AAAA", "CgA="])
async def test_garbage_is_no_token(model: ReadModel, garbage: str) -> None:
    assert (await refused(fresh_order(model, garbage))).reason == "TOKEN_INVALID"


async def test_no_read_is_older_than_its_token_while_a_writer_goes_on(model: ReadModel) -> None:
    """A writer raises versions; readers hold tokens of versions still to come, and of the last one."""
    last = 150
    version = 0

    async def write() -> None:
        nonlocal version
        for version in range(1, last + 1):
            await model.put(order("o-1", version=version))

    async def read(ahead: int) -> None:
        while version < last:
            wanted = min(version + ahead, last)
            assert (await fresh_order(model, token(o_1=wanted))).version >= wanted

    await asyncio.gather(write(), *(read(ahead) for ahead in (0, 1, 2, 5)))
