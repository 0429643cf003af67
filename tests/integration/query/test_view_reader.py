"""ViewReader and Staleness: a missing view proves absence only while the projection has caught up."""

import asyncio
from time import time

import pytest

from query_server.staleness import AnswerAge, Staleness, StalenessSampler
from query_server.view_reader import Window
from runtime.grpc.metadata import STALENESS as METADATA
from runtime.grpc.rpc_error import RpcError
from tests.support.harness.freshness import make_serving
from tests.support.harness.read_model import ReadModel
from tests.support.harness.waiting import until
from tests.support.ledger.stored_views import CHEQUE, HISTORY, cheque


async def test_a_view_is_read_as_it_is_stored(model: ReadModel) -> None:
    await model.put(cheque("c-1"))
    assert await model.views.get("c-1") == cheque("c-1").SerializeToString()


async def test_a_view_that_a_ready_projection_lacks_does_not_exist(model: ReadModel) -> None:
    assert await model.views.get("c-1") is None


async def test_a_missing_view_proves_nothing_during_a_rebuild(model: ReadModel) -> None:
    await model.mark_rebuilding()
    with pytest.raises(RpcError) as error:
        await model.views.get("c-1")
    assert error.value.reason == "VIEW_REBUILDING"
    assert error.value.retry_after


async def test_no_view_is_served_during_a_rebuild(model: ReadModel) -> None:
    await model.put(cheque("c-1"))
    await model.mark_rebuilding()
    with pytest.raises(RpcError) as error:
        await model.views.get("c-1")  # it may be older than the one that was served before
    assert error.value.reason == "VIEW_REBUILDING"
    with pytest.raises(RpcError) as error:
        await model.views.get_all(["c-1"])
    assert error.value.reason == "VIEW_REBUILDING"


async def test_a_view_written_between_the_miss_and_the_marker_is_returned(
    model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The marker that is read with the miss proves nothing about the moment of the miss."""
    call_behind = model.reader.call_behind

    async def read_then_write(*commands: tuple[str | bytes | int, ...]) -> tuple[object, object]:
        replies = await call_behind(*commands)
        await model.put(cheque("c-1"))
        return replies

    monkeypatch.setattr(model.reader, "call_behind", read_then_write)
    assert await model.views.get("c-1") is not None


async def test_replies_across_a_change_of_incarnation_are_refused(model: ReadModel) -> None:
    restored = ("SET", CHEQUE.ready, "another incarnation")
    with pytest.raises(RpcError) as error:
        await model.views.read_while_ready(restored)
    assert error.value.reason == "VIEW_REBUILDING"


async def test_a_list_is_refused_during_a_rebuild(model: ReadModel) -> None:
    await model.put(cheque("c-1"))
    await model.mark_rebuilding()
    with pytest.raises(RpcError) as error:
        await model.views.get_members(Window(CHEQUE.index("account", "a-1")), "", 10)
    assert error.value.reason == "VIEW_REBUILDING"


async def read_bound(model: ReadModel, *parked: bytes, lists: bool = False) -> int | None:
    """Return the bound of an answer, in milliseconds, that shows these parked views, or all in a list."""
    serving = make_serving(CHEQUE, model.reader)
    await StalenessSampler(model.reader, [serving]).take()
    staleness = serving.staleness
    age = AnswerAge(staleness)
    for record in parked:
        age.include_parked(record)
    if lists:
        age.include_all()
    return int(dict(age.metadata())[METADATA]) if age.metadata() else None


async def park(model: ReadModel, view_id: str, since: int) -> bytes:
    record = b'{"stale_since": %d, "attempts": 6, "version": 3, "state": "parked"}' % since
    await model.redis.hset(CHEQUE.key(view_id), mapping={"version": "2", "parked": record})
    await model.redis.hset(CHEQUE.parked, view_id, record)
    await model.redis.zadd(CHEQUE.parked_since, {view_id: since})
    return record


async def test_staleness_is_that_of_the_oldest_partition(model: ReadModel) -> None:
    now = int(time() * 1000)
    await model.set_as_of(now)
    await model.set_as_of(now - 7_000, [3])
    bound = await read_bound(model)
    assert bound is not None
    assert 7_000 <= bound < 12_000


async def test_staleness_is_unknown_until_the_time_of_every_partition_is_known(model: ReadModel) -> None:
    await model.set_as_of(int(time() * 1000), range(15))
    assert await read_bound(model) is None
    await model.set_as_of(0, [15])  # it has caught up, and no relay has confirmed the stream
    assert await read_bound(model) is None
    await model.set_as_of(int(time() * 1000), [15])
    assert await read_bound(model) is not None


async def test_staleness_is_unknown_after_the_clock_of_redis_was_set_back(model: ReadModel) -> None:
    await model.set_as_of(int(time() * 1000) + 60_000)
    assert await read_bound(model) is None


async def test_a_parked_view_has_a_staleness_of_its_own(model: ReadModel) -> None:
    now = int(time() * 1000)
    await model.set_as_of(now)
    await park(model, "c-1", now - 20_000)
    record = await park(model, "c-2", now - 10_000)
    of_others, of_parked, of_list = await asyncio.gather(
        read_bound(model), read_bound(model, record), read_bound(model, lists=True)
    )
    assert of_others is not None
    assert of_parked is not None
    assert of_list is not None
    assert of_others < 5_000
    assert 10_000 <= of_parked < 15_000
    assert 20_000 <= of_list < 25_000


async def test_staleness_of_a_parked_view_is_unknown_without_a_time(model: ReadModel) -> None:
    await model.set_as_of(int(time() * 1000))
    assert await read_bound(model, b"{}") is None
    assert await read_bound(model, b"no record") is None
    await model.redis.hset(CHEQUE.parked, "c-1", "{}")  # by a release that knew no times
    assert await read_bound(model, lists=True) is None
    assert await read_bound(model) is not None


async def test_a_sample_does_not_count_after_a_lost_connection(model: ReadModel) -> None:
    await model.set_as_of(int(time() * 1000))
    serving = make_serving(CHEQUE, model.reader)
    await StalenessSampler(model.reader, [serving]).take()
    staleness = serving.staleness
    assert AnswerAge(staleness).metadata()
    await model.redis.client_kill_filter(_type="normal", skipme=True)
    await until(lambda: is_without_bound(staleness))


async def is_without_bound(staleness: Staleness) -> bool:
    return not AnswerAge(staleness).metadata()


async def test_a_damaged_time_hides_the_bound_of_its_projection_alone(model: ReadModel) -> None:
    await model.set_as_of(int(time() * 1000))
    await model.redis.set(HISTORY.as_of, "a string")
    damaged, other = make_serving(HISTORY, model.reader), make_serving(CHEQUE, model.reader)
    await StalenessSampler(model.reader, [damaged, other]).take()
    assert AnswerAge(other.staleness).metadata()
    assert not AnswerAge(damaged.staleness).metadata()


async def test_a_query_after_an_idle_time_brings_the_next_sample_forward(
    model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("query_server.staleness.IDLE_INTERVAL", 600.0)
    serving = make_serving(CHEQUE, model.reader)
    staleness = serving.staleness
    running = asyncio.create_task(StalenessSampler(model.reader, [serving]).run())
    await until(lambda: staleness.sample is not None)
    for _ in range(2):
        first = staleness.sample
        AnswerAge(staleness)
        await until(lambda sample=first: staleness.sample is not sample)  # type: ignore[misc]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
