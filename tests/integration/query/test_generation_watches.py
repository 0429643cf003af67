"""Watches while a projection switches between generations: versions rise, and the last state arrives."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from contracts.view_layout import GENERATION
from query_server import change_notifications, watches
from query_server.change_notifications import ChangeNotifications
from runtime.grpc.rpc_error import RpcError
from tests.integration.query.test_watches import run_notifications
from tests.support.harness.keys import mint_token
from tests.support.harness.query_calls import QueryCalls, Watch
from tests.support.harness.read_model import INCARNATION, ReadModel
from tests.support.harness.waiting import until
from tests.support.ledger import queries as ledger
from tests.support.ledger.stored_views import cheque

LATER = f"{GENERATION}.1"
Method = tuple[str, dict[str, Any]]
VIEW: Method = ("WatchCheque", {"cheque_id": "c-1"})
FEED: Method = ("WatchAccountCheques", {"account_id": "a-1"})
BOTH = pytest.mark.parametrize(("method", "request_"), [VIEW, FEED], ids=["view", "feed"])


async def set_build(model: ReadModel) -> ReadModel:
    view = model.projections.view
    await model.redis.set(view.build, f"{INCARNATION}/build of {view.generation}")
    await model.mark_ready()
    return model


@pytest.fixture
async def old(model: ReadModel) -> ReadModel:
    return await set_build(model)


@pytest.fixture
async def new(old: ReadModel) -> ReadModel:
    return await set_build(old.at(LATER))


@pytest.fixture
async def notifications(
    old: ReadModel, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ChangeNotifications]:
    """Notifications that no poll makes up for."""
    monkeypatch.setattr(change_notifications, "BUILD_CHECK_INTERVAL", 600.0)
    async with run_notifications(old, redis_url) as notifications:
        yield notifications


@pytest.fixture
async def calls(old: ReadModel, notifications: ChangeNotifications) -> QueryCalls:
    return QueryCalls(old, ledger.CONTEXT, notifications)


async def change(model: ReadModel, *cheques: Any) -> None:
    """Write cheques and publish a notification, as the projector does."""
    view = model.projections.view
    feed = view.change_feed("account", "a-1")
    await model.put(*cheques)
    for each in cheques:
        last: Any = await model.redis.zrange(feed, -1, -1, withscores=True)
        await model.redis.zadd(feed, {each.cheque_id: last[0][1] + 1 if last else 1})
    message = ([each.cheque_id for each in cheques], [feed])
    await model.redis.publish(view.change_channel, msgspec.msgpack.encode(message))


async def read(watch: Watch) -> tuple[str, int, int]:
    view = (await watch.read()).cheque
    return view.cheque_id, view.version, view.amount.units


async def wait_until_read(model: ReadModel, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> None:
    """Switch to a generation, and return after a watcher has read its views there."""
    prefix, reads = model.projections.view.key(""), 0
    pipeline = model.reader.pipeline

    async def record(*commands: Any) -> list[Any]:
        nonlocal reads
        replies = await pipeline(*commands)
        reads += any(str(part).startswith(prefix[:-1]) for command in commands for part in command)
        return replies

    with monkeypatch.context() as patch:
        patch.setattr(model.reader, "pipeline", record)
        await model.serve()
        await until(lambda: reads >= times)


@BOTH
async def test_a_watch_goes_on_without_what_it_has_sent(
    old: ReadModel, new: ReadModel, calls: QueryCalls, method: str, request_: dict[str, Any]
) -> None:
    for model in (old, new):
        await change(model, cheque("c-1", version=3))
    async with calls.watch(method, **request_) as watch:
        assert await read(watch) == ("c-1", 3, 0)
        for model in (new, old, new):
            await model.serve()
        await old.delete()
        await change(new, cheque("c-1", version=4, units=2))
        assert await read(watch) == ("c-1", 4, 2)
        assert watch.is_quiet


@BOTH
async def test_other_content_is_sent_again(
    old: ReadModel, new: ReadModel, calls: QueryCalls, method: str, request_: dict[str, Any]
) -> None:
    await change(old, cheque("c-1", version=3, units=1))
    await change(new, cheque("c-1", version=3, units=2))
    async with calls.watch(method, **request_) as watch:
        for model, units in ((old, 1), (new, 2), (old, 1)):
            await model.serve()
            assert await read(watch) == ("c-1", 3, units)
        await change(old, cheque("c-1", version=4))
        assert await read(watch) == ("c-1", 4, 0)


@BOTH
async def test_a_generation_that_is_behind_is_waited_for(
    old: ReadModel,
    new: ReadModel,
    calls: QueryCalls,
    method: str,
    request_: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await change(old, cheque("c-1", version=3, units=1))
    await change(new, cheque("c-1", version=2, units=2))
    async with calls.watch(method, **request_) as watch:
        assert await read(watch) == ("c-1", 3, 1)
        await wait_until_read(new, monkeypatch)
        await change(new, cheque("c-1", version=3, units=2))
        assert await read(watch) == ("c-1", 3, 2)


async def test_a_view_that_the_generation_lacks_yet_is_waited_for(
    old: ReadModel, new: ReadModel, calls: QueryCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    await change(old, cheque("c-1", version=3))
    method, request = VIEW
    async with calls.watch(method, **request) as watch:
        await read(watch)
        await wait_until_read(new, monkeypatch)
        await change(new, cheque("c-1", version=4))
        assert await read(watch) == ("c-1", 4, 0)


async def test_a_feed_goes_on_with_what_differs(old: ReadModel, new: ReadModel, calls: QueryCalls) -> None:
    await change(old, *(cheque(f"c-{n}", version=3, written=n) for n in range(1, 5)))
    await change(
        new,
        cheque("c-5", version=1),
        cheque("c-3", version=2, written=3),
        cheque("c-2", version=3, written=2, units=9),
        cheque("c-1", version=3, written=1),
    )
    method, request = FEED
    async with calls.watch(method, **request) as watch:
        for n in range(1, 5):
            assert await read(watch) == (f"c-{n}", 3, 0)
        await new.serve()
        assert await read(watch) == ("c-5", 1, 0)
        assert await read(watch) == ("c-2", 3, 9)
        await change(new, cheque("c-3", version=3, written=3), cheque("c-4", version=4, written=4))
        assert await read(watch) == ("c-4", 4, 0)


@BOTH
async def test_resume_tokens_are_of_one_generation(
    old: ReadModel, new: ReadModel, calls: QueryCalls, method: str, request_: dict[str, Any]
) -> None:
    for model, units in ((old, 1), (new, 2)):
        await change(model, cheque("c-1", version=3, units=units))
    async with calls.watch(method, **request_) as watch:
        token = (await watch.read()).resume_token
    await new.serve()
    async with calls.watch(method, resume_token=token, **request_) as watch:
        response = await watch.read()
        assert response.cheque.amount.units == 2, "the state of the generation that serves comes first"
        token = response.resume_token
    late_calls = QueryCalls(old, ledger.CONTEXT, calls.notifications)  # has not met the generation yet
    async with late_calls.watch(method, resume_token=token, **request_) as watch:
        await until(lambda: calls.notifications.listeners > 0)
        await change(new, cheque("c-1", version=4))
        assert await read(watch) == ("c-1", 4, 0)


async def test_a_resumed_watch_sends_the_state_after_a_switch(
    old: ReadModel, new: ReadModel, calls: QueryCalls
) -> None:
    """What the earlier call has sent is unknown but for its version."""
    for model in (old, new):
        await change(model, cheque("c-1", version=3))
    method, request = VIEW
    async with calls.watch(method, **request) as watch:
        token = (await watch.read()).resume_token
    async with calls.watch(method, resume_token=token, **request) as watch:
        await until(lambda: calls.notifications.listeners == 1)
        await change(old, cheque("c-2"))
        await new.serve()
        assert await read(watch) == ("c-1", 3, 0)


async def test_a_watch_waits_for_its_token_in_each_generation(
    old: ReadModel,
    new: ReadModel,
    notifications: ChangeNotifications,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watches, "RETRY_INTERVAL", 0.01)
    calls = QueryCalls(old, ledger.CONTEXT, notifications, max_wait=0.01)
    await change(old, cheque("c-1", version=3))
    await change(new, cheque("c-2", version=9, written=2), cheque("c-1", version=2))
    method, request = FEED
    token = mint_token(INCARNATION, {"ledger.cheque.c-1": 3})
    async with calls.watch(method, 20, at_least_as_fresh=token, **request) as watch:
        assert await read(watch) == ("c-1", 3, 0)
        await wait_until_read(new, monkeypatch, times=5)  # more often than one wait takes
        assert watch.is_quiet
        await change(new, cheque("c-1", version=3))
        assert await read(watch) == ("c-2", 9, 0)


async def test_a_watch_of_a_generation_that_is_not_ready_ends(
    old: ReadModel, new: ReadModel, calls: QueryCalls
) -> None:
    await change(old, cheque("c-1"))
    method, request = VIEW
    async with calls.watch(method, **request) as watch:
        await read(watch)
        await new.mark_rebuilding()
        await new.serve()
        with pytest.raises(RpcError) as error:
            await watch.read()
        assert error.value.reason == "VIEW_REBUILDING"


@BOTH
async def test_versions_rise_through_switches_and_the_last_arrives(
    old: ReadModel, new: ReadModel, calls: QueryCalls, method: str, request_: dict[str, Any]
) -> None:
    last = 40

    async def write(model: ReadModel) -> None:
        for version in range(2, last + 1):
            await change(model, cheque("c-1", version=version))

    async def switch(writing: "asyncio.Future[Any]") -> None:
        while not writing.done():
            for model in (new, old):
                await model.serve()

    for model in (old, new):
        await change(model, cheque("c-1"))
    async with calls.watch(method, **request_) as watch:
        writing = asyncio.gather(write(old), write(new))
        switching = asyncio.create_task(switch(writing))
        versions = [0]
        while versions[-1] < last:
            versions.append((await read(watch))[1])
        await asyncio.gather(writing, switching)
        assert versions == sorted(set(versions))
        assert watch.is_quiet
