"""Acts on generations: two operators at once, acts that are repeated, and acts that were interrupted."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from diptych.operations.v1 import operations_service_pb2 as protocol
from redis.asyncio import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.generations import GenerationRecord, decode_record, decode_serving, encode_record
from operations_server.acts import CallerLeft, OperatorActs
from operations_server.generations import store as store_module
from operations_server.generations.handlers import Chosen, GenerationsApi, create_handlers
from operations_server.stores import create_database
from runtime.grpc import caller
from runtime.grpc.rpc_error import RpcError
from runtime.postgres import create_engine
from tests.support.ledger.projections import CHEQUES

VIEW = CHEQUES.view
NEW = VIEW.at("2.1")
NAME: dict[str, Any] = {"projection": VIEW.projection, "reason": "a test"}
CONTEXT: Any = None


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """Redis with generation 2, which serves, and 2.1, which is built."""
    async with Redis.from_url(redis_url) as redis:
        for view in (VIEW, NEW):
            await redis.set(view.ready, "the incarnation")
            await redis.hset(view.key("c"), mapping={"version": 1, "data": b""})
        await redis.hset(VIEW.generations, "2.1", encode_record(GenerationRecord(begun=1)))
        yield redis


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_database(database_url)
    yield engine
    await engine.dispose()


@pytest.fixture
async def api(redis: Redis, database: AsyncEngine) -> GenerationsApi:
    caller.set_current(caller.Caller("ada", frozenset()))
    nats: Any = None  # only asked how far a build is
    return GenerationsApi(redis, database, nats, [CHEQUES])


async def switch(api: GenerationsApi, **values: Any) -> Any:
    """Switch; return the last response."""
    return [each async for each in api.switch(protocol.SwitchGenerationRequest(**NAME, **values))][-1]


async def roll_back(api: GenerationsApi) -> str:
    return (await api.roll_back(protocol.RollBackGenerationRequest(**NAME), CONTEXT)).generation


async def prune(api: GenerationsApi, generation: str) -> int:
    request = protocol.PruneGenerationRequest(**NAME, generation=generation)
    return (await api.prune(request, CONTEXT)).deleted_keys


async def find_serving(redis: Redis) -> str:
    value: Any = await redis.get(VIEW.serving)
    return decode_serving(value)


async def read_record(database_url: str) -> list[tuple[str, str, str | None]]:
    engine = create_engine(database_url)
    query = "SELECT from_generation, to_generation, outcome FROM projection_switches ORDER BY number"
    async with engine.connect() as connection:
        rows = await connection.execute(text(query))
        found = [tuple(row) for row in rows]
    await engine.dispose()
    return found


def get_reason(error: BaseException | None) -> str:
    assert isinstance(error, RpcError), repr(error)
    return error.reason


async def test_a_repeated_switch_never_goes_back(api: GenerationsApi, redis: Redis) -> None:
    await switch(api)
    for generation in ("", "2.1"):
        with pytest.raises(RpcError) as caught:
            await switch(api, generation=generation)
        assert get_reason(caught.value) == "GENERATION_SERVES"
    assert await find_serving(redis) == "2.1"
    await switch(api, generation="2")  # by its name
    assert await find_serving(redis) == "2"


async def test_a_repeated_rollback_never_goes_back(
    api: GenerationsApi, redis: Redis, database_url: str
) -> None:
    await switch(api)
    assert await roll_back(api) == "2"
    with pytest.raises(RpcError, match="none that served before"):
        await roll_back(api)
    assert await find_serving(redis) == "2"
    await switch(api)
    assert await roll_back(api) == "2"  # a switch makes it a choice again
    assert await read_record(database_url) == [("2", "2.1", "DONE"), ("2.1", "2", "DONE")] * 2


async def test_of_several_operators_who_switch_at_once_one_succeeds(
    api: GenerationsApi, redis: Redis, database_url: str
) -> None:
    results = await asyncio.gather(*(switch(api) for _ in range(5)), return_exceptions=True)
    refused = [get_reason(each) for each in results if isinstance(each, BaseException)]
    assert len(refused) == 4
    assert set(refused) <= {"GENERATIONS_CHANGED", "GENERATION_SERVES"}
    assert await find_serving(redis) == "2.1"
    assert [outcome for *_, outcome in await read_record(database_url)].count("DONE") == 1


async def test_a_switch_whose_answer_was_lost_is_done_once(api: GenerationsApi, redis: Redis) -> None:
    """The client asks Redis again, as after a time-out."""
    chosen = await ask_twice(api)
    assert await chosen.store.switch(chosen.serving, chosen.find(""), rolls_back=False) == "done"
    chosen = await ask_twice(api)
    assert await chosen.store.switch(chosen.serving, chosen.find(""), rolls_back=True) == "done"
    await redis.hdel(VIEW.generations, "2.1")
    chosen = await ask_twice(api)
    assert await chosen.store.begin(chosen.states, None) == "2.1"


async def ask_twice(api: GenerationsApi) -> Chosen:
    """Return the generations, whose store asks Redis twice for each change."""
    chosen = await api._read(VIEW.projection)
    run = chosen.store._run

    async def run_twice(*arguments: Any) -> Any:
        await run(*arguments)
        return await run(*arguments)

    chosen.store._run = run_twice  # type: ignore[method-assign, assignment]
    return chosen


async def test_a_switch_of_which_redis_says_nothing_is_on_record(
    api: GenerationsApi, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> Any:
        raise RedisTimeoutError

    monkeypatch.setattr(store_module.GenerationStore, "_run", fail)
    with pytest.raises(RedisTimeoutError):
        await switch(api)
    assert await read_record(database_url) == [("2", "2.1", None)]


async def test_no_switch_is_done_that_cannot_be_recorded(
    api: GenerationsApi, redis: Redis, database_url: str
) -> None:
    engine = create_engine(database_url)
    async with engine.begin() as connection:
        await connection.execute(text("REVOKE INSERT ON projection_switches FROM diptych_operations"))
    await engine.dispose()
    with pytest.raises(RpcError, match="the act was not done") as caught:
        await switch(api)
    assert get_reason(caught.value) == "WRITE_MODEL_UNAVAILABLE"
    assert await find_serving(redis) == "2"


class LeftCall:
    """The context of a call whose client has left."""

    async def write(self, _message: object) -> None:
        raise asyncio.InvalidStateError


async def test_a_switch_whose_caller_left_before_it_is_not_done(
    api: GenerationsApi, redis: Redis, database: AsyncEngine, database_url: str
) -> None:
    handler = create_handlers(api, OperatorActs(database))["SwitchGeneration"]
    context: Any = LeftCall()
    with pytest.raises(CallerLeft):
        await handler(protocol.SwitchGenerationRequest(**NAME), context)
    assert await find_serving(redis) == "2"
    assert await read_record(database_url) == []
    async with database.connect() as connection:
        assert await connection.scalar(text("SELECT outcome FROM operator_acts")) == "CALLER_LEFT"


async def test_two_builds_at_once_begin_one(api: GenerationsApi, redis: Redis) -> None:
    await redis.delete(VIEW.generations)
    request = protocol.BuildGenerationRequest(**NAME)
    results = await asyncio.gather(*(api.build(request, CONTEXT) for _ in range(5)), return_exceptions=True)
    begun = [each for each in results if not isinstance(each, BaseException)]
    assert [each.generation for each in begun] == ["2.1"]
    refused = {get_reason(each) for each in results if isinstance(each, BaseException)}
    assert refused <= {"GENERATION_EXISTS", "GENERATIONS_CHANGED"}
    assert await redis.hkeys(VIEW.generations) == [b"2.1"]


async def test_an_interrupted_prune_is_repeated(api: GenerationsApi, redis: Redis) -> None:
    await redis.hdel(VIEW.generations, "2.1")  # all that was done before the server was killed
    assert await prune(api, "2.1") == 1
    assert not [key async for key in redis.scan_iter(match=f"*:{VIEW.projection}:2.1*")]
    with pytest.raises(RpcError) as caught:
        await prune(api, "2.1")
    assert get_reason(caught.value) == "GENERATION_NOT_FOUND"


@pytest.mark.parametrize("name", ["*", "2.*", "2.1]", "[2]", "ünbekannt", "2.1.1", "2.99"])
async def test_prune_takes_names_and_no_patterns(api: GenerationsApi, redis: Redis, name: str) -> None:
    with pytest.raises(RpcError) as caught:
        await prune(api, name)
    assert get_reason(caught.value) == "GENERATION_NOT_FOUND"
    assert await redis.exists(NEW.key("c"), VIEW.key("c")) == 2


async def test_a_prune_deletes_nothing_of_a_build_of_the_same_name(
    api: GenerationsApi, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build begins once the record is deleted, and writes its first view before the keys are."""
    scan = store_module.GenerationStore._scan

    async def begin_meanwhile(self: Any, view: Any) -> Any:
        await redis.hset(VIEW.generations, "2.1", encode_record(GenerationRecord(begun=2)))
        async for page in scan(self, view):
            yield page

    monkeypatch.setattr(store_module.GenerationStore, "_scan", begin_meanwhile)
    assert await prune(api, "2.1") == 0
    assert await redis.exists(NEW.key("c"))
    await redis.hdel(VIEW.generations, "2.1")

    chosen = await api._read(VIEW.projection)  # an operator who has seen no record
    await redis.hset(VIEW.generations, "2.1", encode_record(GenerationRecord(begun=3)))
    assert await chosen.store.prune(NEW, has_record=False) is None
    record: Any = await redis.hget(VIEW.generations, "2.1")
    assert decode_record(record).begun == 3


async def test_a_pause_without_a_name_is_of_the_generation_built_last(
    api: GenerationsApi, redis: Redis
) -> None:
    request = protocol.PaceGenerationRequest(**NAME, paused=True)
    assert (await api.pace(request, CONTEXT)).generation.name == "2.1"
    await switch(api)
    with pytest.raises(RpcError) as caught:
        await api.pace(request, CONTEXT)
    assert get_reason(caught.value) == "GENERATION_SERVES"


async def test_a_pause_undoes_no_change_of_another_operator(api: GenerationsApi, redis: Redis) -> None:
    """The other one has switched and rolled back, since the first one read the record."""
    chosen = await api._read(VIEW.projection)
    await switch(api)
    await roll_back(api)
    seen = chosen.find("2.1")
    assert not await chosen.store.replace(seen, GenerationRecord(begun=1, paused="by ada"))
    current = (await api._read(VIEW.projection)).find("2.1")
    assert current.record and (current.record.rolled_back, current.record.paused) == (True, "")
