"""Calls while a projection switches between generations: each answer is of one of them, and none fails."""

import asyncio
import gc
import random
import weakref
from dataclasses import replace
from typing import Any

import pytest

from contracts.view_layout import GENERATION
from query_server import change_notifications
from query_server.change_notifications import Signal
from query_server.fresh_reader import FreshReader
from query_server.redis_client import RedisClient
from query_server.service import MAX_RUNS, Query
from query_server.staleness import StalenessSampler
from query_server.view_reader import GenerationSwitched, Window
from query_server.wire_format import encode_view
from runtime.grpc.rpc_error import RpcError
from runtime.redis.pipeline import Command
from tests.integration.query.test_watches import run_notifications
from tests.support.harness.keys import TOKENS, mint_token
from tests.support.harness.query_calls import QueryCalls
from tests.support.harness.read_model import INCARNATION, ReadModel
from tests.support.harness.waiting import until
from tests.support.ledger import queries as ledger
from tests.support.ledger.queries import HISTORY
from tests.support.ledger.stored_views import CHEQUE, cheque
from tests.support.ledger.stubs import queries, types

LATER = f"{GENERATION}.1"
IDS = [f"c-{n}" for n in range(6)]


def make_cheques(units: int) -> list[Any]:
    return [cheque(cheque_id, units=units, written=n) for n, cheque_id in enumerate(IDS)]


def make_entry(version: int, action: str) -> Any:
    return types.ChequeHistoryEntry(version=version, actor=action)


@pytest.fixture
async def old(model: ReadModel) -> ReadModel:
    """The generation that serves at first; its amounts are 1."""
    await model.put(*make_cheques(1))
    await model.put_history("c-1", *(make_entry(version, "old") for version in range(1, 4)))
    return model


@pytest.fixture
async def new(old: ReadModel) -> ReadModel:
    """The generation to switch to; its amounts are 2."""
    model = old.at(LATER)
    await model.mark_ready()
    await model.put(*make_cheques(2))
    await model.put_history("c-1", *(make_entry(version, "new") for version in range(1, 4)))
    return model


@pytest.fixture
async def calls(old: ReadModel) -> QueryCalls:
    return QueryCalls(old, ledger.CONTEXT)


async def list_ids(calls: QueryCalls, token: str = "") -> tuple[list[str], set[int], str]:
    """Return the ids and the amounts on a page, and the token of the next."""
    response = await calls.call("ListCheques", account_id="a-1", page_size=3, page_token=token)
    ids = [view.cheque_id for view in response.cheques]
    return ids, {view.amount.units for view in response.cheques}, response.next_page_token


async def read_everything(calls: QueryCalls) -> list[set[Any]]:
    """Return what shows the generation in the response of each method."""
    got = await calls.call("GetCheque", cheque_id="c-1")
    batch = await calls.call("BatchGetCheques", cheque_ids=[*IDS, "c-9"])
    assert (len(batch.cheques), [*batch.missing_cheque_ids]) == (len(IDS), ["c-9"])
    ids, listed, _ = await list_ids(calls)
    assert ids == ["c-5", "c-4", "c-3"]
    history = await calls.call("GetChequeHistory", cheque_id="c-1")
    assert [entry.version for entry in history.entries] == [3, 2, 1]
    actors = {{"old": 1, "new": 2}[entry.actor] for entry in history.entries}
    return [{got.cheque.amount.units}, {view.amount.units for view in batch.cheques}, listed, actors]


async def test_calls_follow_a_switch_and_a_rollback(
    old: ReadModel, new: ReadModel, calls: QueryCalls
) -> None:
    assert await read_everything(calls) == [{1}] * 4
    await new.serve()
    assert await read_everything(calls) == [{2}] * 4
    await old.serve()
    assert await read_everything(calls) == [{1}] * 4


@pytest.mark.parametrize("method", ["GetCheque", "BatchGetCheques", "ListCheques", "GetChequeHistory"])
async def test_a_reader_that_was_frozen_goes_on_after_the_prune(
    old: ReadModel, new: ReadModel, calls: QueryCalls, method: str
) -> None:
    await read_everything(calls)
    await new.serve(notify=False)
    await old.delete()
    request: dict[str, Any] = {"BatchGetCheques": {"cheque_ids": IDS}, "ListCheques": {"account_id": "a-1"}}
    response = await calls.call(method, **request.get(method, {"cheque_id": "c-1"}))
    assert response.ByteSize() > 0
    assert await read_everything(calls) == [{2}] * 4


def call_between_reads(
    redis: RedisClient, monkeypatch: pytest.MonkeyPatch, hook: Any, command: str = "ZRANGE"
) -> None:
    """Await a hook after each pipeline with this command."""
    pipeline = redis.pipeline

    async def read(*commands: Command) -> list[Any]:
        replies = await pipeline(*commands)
        if any(each[0] == command for each in commands):
            await hook()
        return replies

    monkeypatch.setattr(redis, "pipeline", read)


async def test_a_page_is_of_one_generation(
    old: ReadModel, new: ReadModel, calls: QueryCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The switch happens after the index was read, and before its views are."""
    await new.put(cheque("c-7", units=2, written=7))  # by its index one sees which was read
    call_between_reads(old.reader, monkeypatch, new.serve)
    ids, amounts, token = await list_ids(calls)
    assert (ids, amounts) == (["c-7", "c-5", "c-4"], {2})
    assert (await list_ids(calls, token))[:2] == (["c-3", "c-2", "c-1"], {2})


async def test_a_view_that_is_missing_is_read_in_the_generation_that_serves(
    old: ReadModel, new: ReadModel, calls: QueryCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The switch happens between the read that finds nothing and the one that proves it."""
    await old.redis.delete(CHEQUE.key("c-1"))
    call_behind = old.reader.call_behind

    async def read_then_switch(*commands: Command) -> tuple[Any, Any]:
        replies = await call_behind(*commands)
        await new.serve()
        return replies

    monkeypatch.setattr(old.reader, "call_behind", read_then_switch)
    assert (await calls.call("GetCheque", cheque_id="c-1")).cheque.amount.units == 2


async def test_the_read_model_of_a_former_generation_is_dropped(
    old: ReadModel, new: ReadModel, calls: QueryCalls
) -> None:
    await calls.call("GetCheque", cheque_id="c-1")
    former = weakref.ref(calls.models[CHEQUE].current.views)
    await new.serve()
    await calls.call("GetCheque", cheque_id="c-1")
    gc.collect()
    assert former() is None


async def test_a_query_of_several_projections_follows_each_of_them(old: ReadModel, new: ReadModel) -> None:
    async def name_generations(cheques: FreshReader, request: Any) -> bytes:
        readers = (cheques, *cheques.others)
        for reader in readers:
            await reader.views.find(request.cheque_id)
        names = " ".join(reader.view.generation for reader in readers)
        return encode_view(types.Cheque(cheque_id=names).SerializeToString())

    query = Query(CHEQUE, name_generations, (HISTORY,))
    calls = QueryCalls(old, replace(ledger.CONTEXT, queries={**ledger.CONTEXT.queries, "GetCheque": query}))

    async def call() -> str:
        response = await calls.call("GetCheque", cheque_id="c-1")
        return str(response.cheque.cheque_id)

    assert await call() == f"{GENERATION} {GENERATION}"
    await old.redis.set(HISTORY.serving, LATER)
    assert await call() == f"{GENERATION} {LATER}"
    await old.redis.set(CHEQUE.serving, LATER)
    assert await call() == f"{LATER} {LATER}"


@pytest.mark.parametrize(("before", "after"), [(GENERATION, LATER), (LATER, GENERATION)])
async def test_replies_across_a_switch_are_refused(old: ReadModel, before: str, after: str) -> None:
    await old.redis.set(CHEQUE.serving, before)
    with pytest.raises(GenerationSwitched) as switch:
        await old.views.read_while_ready(("SET", CHEQUE.serving, after))
    assert switch.value.generation == LATER


async def test_data_that_cannot_be_read_is_forgotten_with_its_generation(
    old: ReadModel, new: ReadModel, calls: QueryCalls
) -> None:
    await old.redis.delete(CHEQUE.key("c-1"), CHEQUE.index("account", "a-1"))
    await old.redis.mset({CHEQUE.key("c-1"): "a string", CHEQUE.index("account", "a-1"): "a string"})
    with pytest.raises(RpcError, match="another type of key"):
        await calls.call("GetCheque", cheque_id="c-1")
    await new.serve()
    assert await read_everything(calls) == [{2}] * 4


async def test_a_call_ends_after_a_few_runs(
    old: ReadModel, new: ReadModel, calls: QueryCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = 0

    async def switch() -> None:
        nonlocal runs
        runs += 1
        await (new, old)[runs % 2 == 0].serve()

    call_between_reads(old.reader, monkeypatch, switch)
    with pytest.raises(RpcError) as error:
        await list_ids(calls)
    assert (error.value.reason, runs) == ("VIEW_REBUILDING", MAX_RUNS)


async def test_a_name_that_is_no_text_is_a_generation_without_views(
    old: ReadModel, calls: QueryCalls
) -> None:
    await old.redis.set(CHEQUE.serving, b"\xff")
    with pytest.raises(RpcError) as error:
        await calls.call("GetCheque", cheque_id="c-1")
    assert error.value.reason == "VIEW_REBUILDING"


async def test_a_write_is_waited_for_in_the_generation_that_serves(
    old: ReadModel, new: ReadModel, redis_url: str
) -> None:
    """The former one includes it already, and the call waits there no longer."""
    token = mint_token(INCARNATION, {"ledger.cheque.c-1": 3})
    async with run_notifications(old, redis_url) as notifications:
        calls = QueryCalls(old, ledger.CONTEXT, notifications)
        reading = asyncio.create_task(
            calls.call("GetCheque", remaining=20, cheque_id="c-1", at_least_as_fresh=token)
        )
        await until(lambda: notifications.listeners == 1)
        await new.serve()
        await until(lambda: calls.models[CHEQUE].current.views.view.generation == LATER)
        await old.put(cheque("c-1", units=1, version=3))
        await asyncio.sleep(0)
        assert not reading.done()
        await new.put(cheque("c-1", units=2, version=3))
        view = (await reading).cheque
        assert (view.version, view.amount.units) == (3, 2)


async def test_page_tokens_continue_in_the_other_generation(
    old: ReadModel, new: ReadModel, calls: QueryCalls
) -> None:
    _, _, token = await list_ids(calls)
    history = await calls.call("GetChequeHistory", cheque_id="c-1", page_size=2)
    await new.serve()
    ids, amounts, last = await list_ids(calls, token)
    assert (ids, amounts, last) == (["c-2", "c-1", "c-0"], {2}, "")
    rest = await calls.call(
        "GetChequeHistory", cheque_id="c-1", page_size=2, page_token=history.next_page_token
    )
    assert [entry.version for entry in rest.entries] == [1]
    _, _, token = await list_ids(calls)
    await old.serve()
    assert (await list_ids(calls, token))[:2] == (["c-2", "c-1", "c-0"], {1})
    with pytest.raises(RpcError) as error:
        await calls.call("ListCheques", account_id="a-2", page_size=3, page_token=token)
    assert error.value.reason == "PAGE_TOKEN_INVALID"


async def test_page_tokens_name_a_list_as_they_did_without_generations(
    new: ReadModel, calls: QueryCalls
) -> None:
    await new.serve()
    request = queries.ListChequesRequest(account_id="a-1", page_size=3)
    list_id = str(Window("index:ledger.cheque:2:{account/a-1}"))
    token = TOKENS.mint_page_token(request, list_id, "0000000000000003:c-3")
    assert (await list_ids(calls, token))[0] == ["c-2", "c-1", "c-0"]


async def test_samples_of_staleness_follow_the_generation(old: ReadModel, new: ReadModel) -> None:
    calls = QueryCalls(old, ledger.CONTEXT)
    serving = calls.models[CHEQUE]
    sampler = StalenessSampler(old.reader, [serving])
    await new.set_as_of(1_000)
    await sampler.take()
    assert sampler.read_ages() == {}
    await new.serve()
    await sampler.take()
    assert serving.current.views.view.generation == LATER
    assert list(sampler.read_ages()) == [CHEQUE.projection]


async def test_readers_through_fifty_switches_meet_no_error_and_no_mix(
    old: ReadModel, new: ReadModel, calls: QueryCalls
) -> None:
    open_calls: set[object] = set()
    completed, done = 0, asyncio.Event()
    token = mint_token(INCARNATION, {f"ledger.cheque.{cheque_id}": 1 for cheque_id in IDS})
    batch, page = ("BatchGetCheques", {"cheque_ids": IDS}), ("ListCheques", {"account_id": "a-1"})

    async def read(number: int) -> None:
        nonlocal completed
        method, request = (batch, page)[number % 2]
        while not done.is_set():
            await asyncio.sleep(random.uniform(0, 1))
            open_calls.add(call := object())
            response = await calls.call(method, at_least_as_fresh=token if number % 3 == 0 else "", **request)
            open_calls.remove(call)
            assert len(response.cheques) == len(IDS)
            assert len({view.amount.units for view in response.cheques}) == 1
            completed += 1

    async with asyncio.TaskGroup() as readers:
        for number in range(200):
            readers.create_task(read(number))
        for number in range(50):
            await until(lambda: len(open_calls) > 0)
            met = {*open_calls}
            await (new, old)[number % 2].serve(notify=False)
            await until(lambda met=met: met.isdisjoint(open_calls))  # type: ignore[misc]
        done.set()
    assert completed >= 200


@pytest.mark.parametrize(("notify", "poll_interval"), [(True, 600.0), (False, 0.05)])
async def test_a_switch_wakes_watchers_even_if_its_notification_is_lost(
    old: ReadModel,
    new: ReadModel,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    notify: bool,
    poll_interval: float,
) -> None:
    monkeypatch.setattr(change_notifications, "BUILD_CHECK_INTERVAL", poll_interval)
    async with run_notifications(old, redis_url) as notifications:
        with notifications.open_signal(CHEQUE.key("c-1")) as signal:
            await signal.wait_until_subscribed()
            while await is_woken(signal):  # by the subscription, and by the first poll
                pass
            await new.serve(notify=notify)
            await asyncio.wait_for(signal.wait(), 20)


async def is_woken(signal: Signal) -> bool:
    try:
        await asyncio.wait_for(signal.wait(), 0.2)
    except TimeoutError:
        return False
    return True
