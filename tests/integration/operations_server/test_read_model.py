"""The read model's state as the operations server reads it from Redis."""

from redis.asyncio import Redis

from contracts.generations import GenerationRecord, encode_record
from contracts.view_layout import GENERATION, View
from operations_server.status.read_model import ReadModel
from operations_server.status.states import ProjectionState
from tests.support.ledger.stubs import types

CHEQUES, HISTORIES = View.of(types.Cheque), View.of(types.ChequeHistory)


async def test_generations_are_those_that_serve_and_those_beside_them(redis_url: str) -> None:
    codes = {view.projection: "code" for view in (CHEQUES, HISTORIES)}
    async with Redis.from_url(redis_url) as redis:
        reader = ReadModel(redis, [CHEQUES, HISTORIES], "ledger", codes)
        for name in ("2.1", "2.2"):
            await redis.hset(CHEQUES.generations, name, encode_record(GenerationRecord(1)))
        await redis.set(CHEQUES.serving, "2.1")  # its record goes in the same moment as it begins to serve
        await redis.set(CHEQUES.at("2.1").ready, "incarnation")
        await redis.hset(CHEQUES.at("2.2").checkpoints, "3", "epoch/7")
        await redis.set(HISTORIES.generations, "no hash")
        state = await reader.read()
    serving = {name: (each.generation, each.ready) for name, each in state.projections.items()}
    assert serving == {
        CHEQUES.projection: ("2.1", "incarnation"),
        HISTORIES.projection: (GENERATION, ""),
    }
    beside = ProjectionState(checkpoints={3: ("epoch", 7)}, generation="2.2")
    assert dict(state.kept) == {(CHEQUES.projection, "2.2"): beside}
