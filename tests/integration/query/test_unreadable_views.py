"""A view that no client could read: its own calls fail and say so, lists and batches go on without it."""

import asyncio
from typing import Any

import pytest
from grpc import StatusCode

from query_server.fresh_reader import FreshReader
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.waits import compute_deadline
from tests.support.harness.freshness import make_freshness
from tests.support.harness.keys import mint_token
from tests.support.harness.read_model import INCARNATION, ReadModel, respond
from tests.support.harness.waiting import until
from tests.support.ledger import queries as ledger
from tests.support.ledger.stored_views import CHEQUE, cheque
from tests.support.ledger.stubs import queries

TOKEN = mint_token(INCARNATION, {"ledger.cheque.c-2": 1})


async def damage(model: ReadModel, fault: str) -> None:
    """Write three cheques, and damage the second."""
    await model.put(*(cheque(f"c-{number}", version=1) for number in (1, 2, 3)))
    key = CHEQUE.key("c-2")
    match fault:
        case "bytes":
            await model.redis.hset(key, "data", b"\xff\xff")
        case "truncated":
            data: Any = await model.redis.hget(key, "data")
            await model.redis.hset(key, "data", data[:-1])
        case "no data":
            await model.redis.hdel(key, "data")
        case "another type":
            await model.redis.delete(key)
            await model.redis.rpush(key, "x")


FAULTS = ["bytes", "truncated", "no data", "another type"]


async def expect_unreadable(model: ReadModel, token: str = "") -> None:
    request = queries.GetChequeRequest(cheque_id="c-2", at_least_as_fresh=token)
    with pytest.raises(RpcError) as error:
        await respond(ledger.get_cheque, model.views, request, remaining=0.3)
    assert (error.value.reason, error.value.code) == ("VIEW_UNREADABLE", StatusCode.DATA_LOSS)
    assert error.value.metadata == {"key": CHEQUE.key("c-2")}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_view_that_cannot_be_read_is_an_error_that_names_it(model: ReadModel, fault: str) -> None:
    await damage(model, fault)
    await expect_unreadable(model)
    await expect_unreadable(model, TOKEN)


@pytest.mark.parametrize("fault", ["bytes", "truncated", "another type"])
@pytest.mark.parametrize("token", ["", mint_token(INCARNATION, {"ledger.cheque.c-1": 1})])
async def test_a_batch_names_the_views_that_cannot_be_read(model: ReadModel, fault: str, token: str) -> None:
    await damage(model, fault)
    request = queries.BatchGetChequesRequest(cheque_ids=["c-1", "c-2", "c-3", "c-9"], at_least_as_fresh=token)
    response = queries.BatchGetChequesResponse.FromString(
        await respond(ledger.batch_get_cheques, model.views, request)
    )
    assert [view.cheque_id for view in response.cheques] == ["c-1", "c-3"]
    assert list(response.missing_cheque_ids) == ["c-9"]
    assert list(response.unreadable_cheque_ids) == ["c-2"]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_list_goes_on_without_a_view_that_cannot_be_read(model: ReadModel, fault: str) -> None:
    await damage(model, fault)
    response = queries.ListChequesResponse.FromString(
        await respond(ledger.list_cheques, model.views, queries.ListChequesRequest())
    )
    assert {view.cheque_id for view in response.cheques} == {"c-1", "c-3"}


async def test_an_index_of_another_type_is_an_error_that_names_it(model: ReadModel) -> None:
    await model.redis.rpush(CHEQUE.index("all"), "x")
    with pytest.raises(RpcError) as error:
        await respond(ledger.list_cheques, model.views, queries.ListChequesRequest())
    assert (error.value.reason, error.value.metadata["key"]) == ("VIEW_UNREADABLE", CHEQUE.index("all"))


@pytest.mark.parametrize("fault", ["another type", "version"])
async def test_calls_that_wait_for_other_views_are_not_disturbed(
    model: ReadModel, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    await model.put(cheque("c-2"), cheque("c-3"))
    commands = 0
    pipeline = model.reader.pipeline

    async def count_commands(*sent: Any) -> Any:
        nonlocal commands
        commands += len(sent)
        return await pipeline(*sent)

    monkeypatch.setattr(model.reader, "pipeline", count_commands)
    views = model.views
    freshness = make_freshness(views)

    async def get(cheque_id: str) -> Any:
        token = mint_token(INCARNATION, {f"ledger.cheque.{cheque_id}": 2})
        reader = FreshReader(views, freshness, token, compute_deadline(10.0))
        return await reader.get(cheque_id, ledger.CHEQUE_NOT_FOUND)

    damaged, other = asyncio.create_task(get("c-2")), asyncio.create_task(get("c-3"))
    await until(lambda: commands >= 10)
    if fault == "version":
        await model.redis.hset(CHEQUE.key("c-2"), "version", "x")
    else:
        await damage(model, fault)
    with pytest.raises(RpcError, match="cannot be read"):
        await asyncio.wait_for(damaged, 3.0)
    assert not other.done()
    await model.put(cheque("c-3", version=2))
    await asyncio.wait_for(other, 3.0)
    assert commands < 100
