"""What is not in Redis is not there, but only while the projection is complete."""

from collections.abc import AsyncIterator
from time import time

import pytest

from query_server.staleness import METADATA, Staleness
from query_server.view_reader import Window
from runtime.grpc.rpc_error import RpcError
from tests.support.harness.read_model import ORDERS, ReadModel, order, read_model


@pytest.fixture
async def model(redis_url: str) -> AsyncIterator[ReadModel]:
    async with read_model(redis_url) as model:
        yield model


async def test_a_view_is_read_as_it_is_stored(model: ReadModel) -> None:
    await model.put(order("o-1"))
    assert await model.orders.get("o-1") == order("o-1").SerializeToString()


async def test_a_view_that_a_complete_projection_lacks_is_not_there(model: ReadModel) -> None:
    assert await model.orders.get("o-1") is None


async def test_a_miss_in_an_incomplete_projection_says_nothing(model: ReadModel) -> None:
    await model.begin_rebuilding()
    with pytest.raises(RpcError) as error:
        await model.orders.get("o-1")
    assert error.value.reason == "VIEW_REBUILDING"
    assert error.value.retry_after


async def test_a_view_that_is_there_is_served_while_the_projection_fills(model: ReadModel) -> None:
    await model.put(order("o-1"))
    await model.begin_rebuilding()
    assert await model.orders.get("o-1") is not None


async def test_a_view_that_appears_between_miss_and_mark_is_found(
    model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look misses, then the rebuild ends: the mark of now says nothing about the look of then."""
    await model.begin_rebuilding()
    call = model.reader.call

    async def call_then_complete(*command: str | bytes | int) -> object:
        reply = await call(*command)
        await model.put(order("o-1"))
        await model.complete()
        return reply

    monkeypatch.setattr(model.reader, "call", call_then_complete)
    assert await model.orders.get("o-1") is not None


async def test_replies_across_a_change_of_incarnation_are_not_taken_for_complete(model: ReadModel) -> None:
    restored = ("SET", ORDERS.ready, "another incarnation")
    with pytest.raises(RpcError) as error:
        await model.orders.complete(restored)
    assert error.value.reason == "VIEW_REBUILDING"


async def test_a_list_of_an_incomplete_projection_says_nothing(model: ReadModel) -> None:
    await model.put(order("o-1"))
    await model.begin_rebuilding()
    with pytest.raises(RpcError) as error:
        await model.orders.members(Window(ORDERS.index("customer", "c-1")), "", 10)
    assert error.value.reason == "VIEW_REBUILDING"


async def test_staleness_is_that_of_the_oldest_partition(model: ReadModel) -> None:
    staleness = Staleness(model.reader, ORDERS)
    now = int(time() * 1000)
    await model.as_of(now)
    await model.as_of(now - 7_000, [3])
    await staleness.sample()
    ((key, millis),) = staleness.metadata()
    assert key == METADATA
    assert 7_000 <= int(millis) < 12_000


async def test_staleness_is_unknown_while_a_partition_is_silent(model: ReadModel) -> None:
    staleness = Staleness(model.reader, ORDERS)
    assert staleness.metadata() == ()
    await model.as_of(int(time() * 1000), range(15))
    await staleness.sample()
    assert staleness.metadata() == ()


async def test_staleness_is_never_negative_when_clocks_differ(model: ReadModel) -> None:
    staleness = Staleness(model.reader, ORDERS)
    await model.as_of(int(time() * 1000) + 60_000)
    await staleness.sample()
    assert staleness.metadata() == ((METADATA, "0"),)
