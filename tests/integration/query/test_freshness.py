"""A response to `at_least_as_fresh` includes that write, or it is an error."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from contracts import incarnations
from query_server import freshness
from runtime.grpc.rpc_error import RpcError
from tests.support.harness.keys import TOKENS, mint_token
from tests.support.harness.read_model import INCARNATION, ReadModel
from tests.support.ledger.stored_views import cheque
from tests.support.ledger.stubs import types

LATER = incarnations.create(INCARNATION)
EARLIER = str(UUID(int=1))


def make_token(incarnation: str = INCARNATION, **versions: int) -> str:
    """Return a token of versions: `c_1=3` is cheque c-1 at version 3."""
    streams = {f"ledger.cheque.{key.replace('_', '-')}": version for key, version in versions.items()}
    return mint_token(incarnation, streams)


async def read_cheque(model: ReadModel, token: str, remaining: float | None = None) -> Any:
    (data,) = await freshness.read(
        model.views, TOKENS, token, model.views.data_command("c-1"), remaining=remaining
    )
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


async def test_waiting_ends_50_ms_before_the_deadline(model: ReadModel) -> None:
    await model.put(cheque("c-1", version=1))
    loop = asyncio.get_running_loop()
    start = loop.time()
    error = await expect_error(read_cheque(model, make_token(c_1=2), remaining=0.3))
    assert error.reason == "VIEW_BEHIND"
    assert error.retry_after
    assert 0.24 < loop.time() - start < 0.3


async def test_waiting_without_a_deadline_ends_after_two_seconds(
    model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert freshness.DEFAULT_TIMEOUT == 2.0
    monkeypatch.setattr(freshness, "DEFAULT_TIMEOUT", 0.2)
    loop = asyncio.get_running_loop()
    start = loop.time()
    assert (await expect_error(read_cheque(model, make_token(c_1=1)))).reason == "VIEW_BEHIND"
    assert 0.19 < loop.time() - start < 1.0


async def test_waiting_reads_redis_rarely(model: ReadModel) -> None:
    before = (
        (await model.redis.info("commandstats"))["cmdstat_hget"]["calls"] if await _has_stats(model) else 0
    )
    await expect_error(read_cheque(model, make_token(c_1=1), remaining=0.55))
    reads = (await model.redis.info("commandstats"))["cmdstat_hget"]["calls"] - before
    assert reads / 2 < 40  # each attempt reads version and data


async def _has_stats(model: ReadModel) -> bool:
    return "cmdstat_hget" in await model.redis.info("commandstats")


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
