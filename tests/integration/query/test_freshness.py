"""A response to `at_least_as_fresh` includes that write, or it is an error."""

import asyncio
from dataclasses import replace
from time import monotonic
from typing import Any
from uuid import UUID

import msgspec
import pytest
from grpc import StatusCode

from contracts import incarnations
from query_server import awaited_versions
from query_server.freshness import PARKED_RETRY_AFTER, Freshness
from runtime.grpc import caller, waits
from runtime.grpc.caller import Caller
from runtime.grpc.rpc_error import RpcError
from runtime.process.settings import Settings
from tests.integration.query.test_watches import change, run_notifications, set_build
from tests.support.harness.freshness import NO_NOTIFICATIONS, make_freshness, make_waits
from tests.support.harness.keys import mint_token
from tests.support.harness.read_model import INCARNATION, ReadModel
from tests.support.harness.waiting import until
from tests.support.ledger.stored_views import CHEQUE, cheque
from tests.support.ledger.stubs import types

LATER = incarnations.create(INCARNATION)
EARLIER = str(UUID(int=1))


def make_token(incarnation: str = INCARNATION, **versions: int) -> str:
    """Return a token of versions: `c_1=3` is cheque c-1 at version 3."""
    streams = {f"ledger.cheque.{key.replace('_', '-')}": version for key, version in versions.items()}
    return mint_token(incarnation, streams)


async def read_cheque(
    model: ReadModel, token: str, remaining: float | None = None, freshness: Freshness | None = None
) -> Any:
    freshness = freshness or make_freshness(model.views)
    deadline = waits.compute_deadline(remaining)
    ((data, _),) = await freshness.read(token, model.views.data_command("c-1"), deadline=deadline)
    return types.Cheque.FromString(data)


async def expect_error(reading: "asyncio.Future[object] | object") -> RpcError:
    with pytest.raises(RpcError) as error:
        await reading  # type: ignore[misc]
    return error.value


async def test_a_view_that_is_fresh_already_is_read_at_once(model: ReadModel) -> None:
    await model.put(cheque("c-1", version=3))
    assert (await read_cheque(model, make_token(c_1=3), remaining=0.0)).version == 3
    assert (await read_cheque(model, make_token(c_1=2), remaining=0.0)).version == 3


async def test_a_read_by_key_waits_for_the_view(model: ReadModel) -> None:
    await model.put(cheque("c-1", version=1))
    reading = asyncio.create_task(read_cheque(model, make_token(c_1=4)))
    for version in (2, 3):
        await model.put(cheque("c-1", version=version))
        await asyncio.sleep(0.03)
        assert not reading.done()
    await model.put(cheque("c-1", version=4))
    assert (await reading).version == 4


async def test_a_read_by_key_waits_for_a_view_that_does_not_exist_yet(model: ReadModel) -> None:
    reading = asyncio.create_task(read_cheque(model, make_token(c_1=1)))
    await asyncio.sleep(0.01)
    await model.put(cheque("c-1"))
    assert (await reading).version == 1


async def test_a_read_waits_for_the_event_of_another_stream_that_the_view_includes(model: ReadModel) -> None:
    view = replace(model.projections.view, includes=(("ledger.account", "account_version"),))
    including = replace(model, projections=replace(model.projections, view=view))
    token = mint_token(INCARNATION, {"ledger.account.c-1": 4, "ledger.other.c-1": 9})
    await model.put(cheque("c-1", version=8))
    reading = asyncio.create_task(read_cheque(including, token))
    for version in (3, 4):
        assert not reading.done()
        await model.redis.hset(view.key("c-1"), "account_version", str(version))
        await asyncio.sleep(0.03)
    assert (await reading).version == 8
    assert (await read_cheque(model, token, remaining=0.0)).version == 8


async def test_every_stream_of_the_token_is_waited_for(model: ReadModel) -> None:
    await model.put(cheque("c-1", version=1), cheque("c-2", version=1))
    reading = asyncio.create_task(read_cheque(model, make_token(c_1=1, c_2=2)))
    await asyncio.sleep(0.03)
    assert not reading.done()
    await model.put(cheque("c-2", version=2))
    await reading


async def test_streams_that_the_projection_does_not_consume_are_ignored(model: ReadModel) -> None:
    await model.put(cheque("c-1"))
    touched = {"ledger.cheque.c-1": 1, "other.item.i-1": 99, "ledger.chequebook.c-1": 99}
    assert await read_cheque(model, mint_token(INCARNATION, touched), remaining=0.0)


async def measure_wait(model: ReadModel, remaining: float | None, max_wait: float = 5.0) -> float:
    """Return the seconds after which a read of a version that never comes ends with `VIEW_BEHIND`."""
    freshness = make_freshness(model.views, make_waits(max_wait))
    loop = asyncio.get_running_loop()
    start = loop.time()
    error = await expect_error(read_cheque(model, make_token(c_1=2), remaining, freshness))
    assert (error.reason, error.code) == ("VIEW_BEHIND", StatusCode.UNAVAILABLE)
    assert error.retry_after
    return loop.time() - start


async def test_waiting_ends_50_ms_before_the_deadline(model: ReadModel) -> None:
    assert 0.2 < await measure_wait(model, 0.3) < 0.3


async def test_waiting_without_a_deadline_ends_after_two_seconds(
    model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert waits.DEFAULT_MAX_WAIT == 2.0
    monkeypatch.setattr(waits, "DEFAULT_MAX_WAIT", 0.2)
    assert 0.15 < await measure_wait(model, None) < 1.0


@pytest.mark.parametrize("remaining", [None, 3600.0])
async def test_waiting_is_capped_however_long_the_deadline(model: ReadModel, remaining: float | None) -> None:
    assert Settings().max_wait == 5.0
    assert 0.15 < await measure_wait(model, remaining, max_wait=0.2) < 1.0


async def test_waiting_calls_read_redis_rarely_and_together(model: ReadModel) -> None:
    freshness = make_freshness(model.views)
    before = await count_reads(model)
    token = make_token(c_1=1)
    reads = [expect_error(read_cheque(model, token, 1.15, freshness)) for _ in range(50)]
    await asyncio.gather(*reads)
    # Each call reads the version and the data once. Then one read of the version serves all calls.
    assert await count_reads(model) - before < 2 * 50 + 10


async def count_reads(model: ReadModel) -> int:
    """Return the number of HGET commands so far."""
    stats: Any = await model.redis.info("commandstats")
    return int(stats.get("cmdstat_hget", {"calls": 0})["calls"])


async def test_a_notification_wakes_a_waiting_call(
    model: ReadModel, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awaited_versions, "POLL_INTERVAL", 60.0)
    await set_build(model, "first")
    async with run_notifications(model, redis_url) as notifications:
        await notifications.wait_until_subscribed()
        freshness = make_freshness(model.views, notifications=notifications)
        reading = asyncio.create_task(read_cheque(model, make_token(c_1=1), 30, freshness))
        await until(lambda: notifications.listeners == 1)
        await asyncio.sleep(0.05)  # its first check is over
        await change(model, cheque("c-1"))
        assert (await asyncio.wait_for(reading, 20)).version == 1
        assert notifications.listeners == 0


async def test_a_change_between_the_first_read_and_the_wait_is_noticed(
    model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awaited_versions, "POLL_INTERVAL", 30.0)
    read_once = model.reader.pipeline

    async def read_and_change(*commands: Any) -> list[Any]:
        monkeypatch.setattr(model.reader, "pipeline", read_once)
        replies = await read_once(*commands)
        await model.put(cheque("c-1"))
        return replies

    monkeypatch.setattr(model.reader, "pipeline", read_and_change)
    assert (await read_cheque(model, make_token(c_1=1), 10)).version == 1


async def test_a_call_beyond_the_limits_is_refused(model: ReadModel) -> None:
    await model.put(cheque("c-1"))
    freshness = make_freshness(model.views, make_waits(per_caller=2, in_all=3))
    token = make_token(c_1=2)

    async def read_as(subject: str) -> Any:
        caller.set_current(Caller(subject, frozenset()))
        return await read_cheque(model, token, 30, freshness)

    reading = [asyncio.create_task(read_as(subject)) for subject in ("eve", "eve", "ada")]
    await asyncio.sleep(0.05)
    for subject, limit in (("eve", "one caller"), ("ada", "all callers")):
        error = await expect_error(asyncio.create_task(read_as(subject)))
        assert (error.reason, error.code) == ("TOO_MANY_WAITS", StatusCode.RESOURCE_EXHAUSTED)
        assert error.metadata["of"] == limit
        assert error.retry_after
    assert (await read_cheque(model, make_token(c_1=1), 30, freshness)).version == 1  # it need not wait
    await model.put(cheque("c-1", version=2))
    assert {view.version for view in await asyncio.gather(*reading)} == {2}
    assert (await asyncio.create_task(read_as("eve"))).version == 2  # the places are free again


async def test_a_cancelled_call_leaves_its_place_and_no_listener(model: ReadModel) -> None:
    bounds = make_waits()
    freshness = make_freshness(model.views, bounds)
    reading = asyncio.create_task(read_cheque(model, make_token(c_1=1), 30, freshness))
    await until(lambda: bounds.active == 1)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert (bounds.active, NO_NOTIFICATIONS.listeners) == (0, 0)


async def test_a_token_of_an_earlier_incarnation_is_outdated(model: ReadModel) -> None:
    await model.put(cheque("c-1", version=9))
    assert (await expect_error(read_cheque(model, make_token(EARLIER, c_1=1)))).reason == "TOKEN_OUTDATED"


async def test_a_token_of_a_later_incarnation_waits_for_the_projectors(model: ReadModel) -> None:
    await model.put(cheque("c-1", version=9))
    assert (await expect_error(read_cheque(model, make_token(LATER, c_1=1)))).reason == "VIEW_REBUILDING"
    await model.mark_ready(LATER)
    assert (await read_cheque(model, make_token(LATER, c_1=1))).version == 9


async def test_a_token_is_outdated_even_if_no_stream_is_consumed(model: ReadModel) -> None:
    before = mint_token(EARLIER, {"other.item.i-1": 1})
    assert (await expect_error(read_cheque(model, before))).reason == "TOKEN_OUTDATED"


async def test_a_restore_while_waiting_is_detected(model: ReadModel) -> None:
    reading = asyncio.create_task(read_cheque(model, make_token(c_1=1)))
    await asyncio.sleep(0.01)
    await model.mark_ready(LATER)
    assert (await expect_error(reading)).reason == "TOKEN_OUTDATED"


def parked_record(*, version: int, attempts: int, state: str) -> bytes:
    return msgspec.json.encode({"version": version, "attempts": attempts, "state": state, "stale_since": 1})


async def test_nobody_waits_for_a_view_that_is_parked_for_good(model: ReadModel) -> None:
    await model.put(cheque("c-1", version=2))
    record = parked_record(version=3, attempts=6, state="parked")
    await model.redis.hset(CHEQUE.key("c-1"), "parked", record)
    assert (await read_cheque(model, make_token(c_1=2))).version == 2
    began = monotonic()
    with pytest.raises(RpcError) as error:
        await read_cheque(model, make_token(c_1=4), remaining=5.0)
    assert monotonic() - began < 2
    assert (error.value.reason, error.value.code) == ("VIEW_PARKED", StatusCode.UNAVAILABLE)
    assert error.value.metadata == {"projection": CHEQUE.projection, "version": "3"}
    assert error.value.retry_after == PARKED_RETRY_AFTER


@pytest.mark.parametrize(("attempts", "reason"), [(0, "VIEW_BEHIND"), (2, "VIEW_PARKED")])
async def test_a_view_that_is_retried_is_waited_for(model: ReadModel, attempts: int, reason: str) -> None:
    await model.put(cheque("c-1", version=2))
    record = parked_record(version=3, attempts=attempts, state="retrying")
    await model.redis.hset(CHEQUE.key("c-1"), "parked", record)
    with pytest.raises(RpcError) as error:
        await read_cheque(model, make_token(c_1=4), remaining=0.2)
    assert error.value.reason == reason
    reading = asyncio.create_task(read_cheque(model, make_token(c_1=4)))
    await asyncio.sleep(0.03)
    await model.put(cheque("c-1", version=4))
    assert (await reading).version == 4


async def test_a_token_is_refused_during_a_rebuild(model: ReadModel) -> None:
    await model.put(cheque("c-1", version=9))
    await model.mark_rebuilding()
    assert (await expect_error(read_cheque(model, make_token(c_1=1)))).reason == "VIEW_REBUILDING"


@pytest.mark.parametrize("garbage", ["x", "abcd", "not a token", "AAAA", "CgA="])
async def test_garbage_is_not_a_token(model: ReadModel, garbage: str) -> None:
    assert (await expect_error(read_cheque(model, garbage))).reason == "TOKEN_INVALID"


async def test_no_read_is_older_than_its_token_during_writes(model: ReadModel) -> None:
    """A writer raises versions; readers use tokens of later versions, and of the latest one."""
    last = 150
    version = 0

    async def write() -> None:
        nonlocal version
        for version in range(1, last + 1):
            await model.put(cheque("c-1", version=version))

    async def read(ahead: int) -> None:
        while version < last:
            wanted = min(version + ahead, last)
            assert (await read_cheque(model, make_token(c_1=wanted))).version >= wanted

    await asyncio.gather(write(), *(read(ahead) for ahead in (0, 1, 2, 5)))
