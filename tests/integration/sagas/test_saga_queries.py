"""`diptych.sagas.v1.QueryService` on toy sagas: one instance, lists, filters and pages."""

import json
from dataclasses import astuple, replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from diptych.sagas.v1.query_service_pb2 import ListSagasRequest
from diptych.sagas.v1.types_pb2 import Saga as SagaMessage
from sqlalchemy.engine import make_url

from process_manager import saga
from process_manager.dispatch.step_client import StepReply
from process_manager.postgres.store import SagaStore
from process_manager.queries.query_service import create_service
from process_manager.queries.saga_queries import MAX_TEXT_LENGTH, SagaQueries
from process_manager.queries.saga_reader import SagaReader
from process_manager.queries.saga_records import SagaCounts, SagaFilter
from runtime.grpc.rpc_error import RpcError
from runtime.postgres import create_engine
from tests.support.harness.account_watch import ACCOUNT_WATCH, BROKEN
from tests.support.harness.keys import TOKENS, mint_token
from tests.support.harness.saga_run import (
    INCARNATION,
    SagaRun,
    call,
    create_freshness,
    list_all,
    list_pages,
    paid,
    written,
)
from tests.support.ledger.sagas import COLLECTION, Collection, describe_status


def describe_with_limit(collection: Collection) -> saga.SagaStatus:
    status = describe_status(collection)
    return replace(status, max_duration=None if status.ended else timedelta(hours=1))


LIMITED: saga.Saga[Any] = replace(COLLECTION, describe_status=describe_with_limit)
REMINDER: saga.Saga[Any] = replace(COLLECTION, name="ledger.reminder")


@pytest.fixture
def run(store: SagaStore) -> SagaRun:
    return SagaRun(store, LIMITED, REMINDER, ACCOUNT_WATCH)


async def get(run: SagaRun, name: str, id_: str, **request: Any) -> SagaMessage:
    response = await call(create_service(run.queries), "GetSaga", saga=name, id=id_, **request)
    message: SagaMessage = response.saga
    return message


async def list_keys(run: SagaRun, **request: Any) -> list[tuple[str, str]]:
    """Return the saga, without its context, and id of the entries on all pages."""
    sagas = await list_all(create_service(run.queries), "ListSagas", "sagas", **request)
    return [(each.saga.removeprefix("ledger."), each.id) for each in sagas]


async def test_an_instance_has_its_steps_timers_streams_and_operator_actions(run: SagaRun) -> None:
    await run.deliver(written("c"))
    waiting = await get(run, LIMITED.name, "c")
    assert (waiting.saga, waiting.id, waiting.state) == (LIMITED.name, "c", "CASHING")
    assert (waiting.waiting_for, waiting.ended) == ("the reply to cash", False)
    assert waiting.due_time.ToDatetime() - waiting.state_start_time.ToDatetime() == timedelta(hours=1)
    (timer,) = waiting.timers
    assert timer.name == "timeout"
    assert timer.due_time.ToDatetime() - waiting.begin_time.ToDatetime() == timedelta(hours=1)
    (position,) = waiting.streams
    assert (position.stream, position.version, position.failed) == ("ledger.cheque.c", 1, False)
    for step in await run.read_due_steps():
        await run.engine.record_reply(step, StepReply(reason="CHEQUE_WORTHLESS"))
    await run.engine.retry(LIMITED.name, "c", "ada")
    await run.engine.abort(LIMITED.name, "c", "enough", "ada")
    ended = await get(run, LIMITED.name, "c")
    assert (ended.state, ended.ended, ended.waiting_for) == ("GIVEN_UP", True, "")
    assert [(step.name, step.attempt, step.outcome) for step in ended.steps] == [
        ("cash", 1, "CHEQUE_WORTHLESS"),
        ("cash", 2, ""),
    ]
    actions = [(each.action, each.reason, each.operator) for each in ended.operator_actions]
    assert actions == [("retry", "", "ada"), ("abort", "enough", "ada")]


async def test_an_instance_of_several_streams_shows_where_it_failed(run: SagaRun) -> None:
    await run.deliver(written("c"))
    await run.deliver(paid("a", amount=BROKEN))
    watch = await get(run, ACCOUNT_WATCH.name, "a")
    assert [(each.stream, each.version, each.failed) for each in watch.streams] == [
        ("ledger.account.a", 0, True),
        ("ledger.cheque.c", 1, False),
    ]
    assert "version 1 failed" in watch.blocked_reason


@pytest.mark.parametrize(
    ("name", "id_", "reason"),
    [("ledger.nothing", "c", "SAGA_UNKNOWN"), (LIMITED.name, "nobody", "SAGA_NOT_FOUND")],
)
async def test_an_unknown_saga_or_instance_is_not_found(
    run: SagaRun, name: str, id_: str, reason: str
) -> None:
    with pytest.raises(RpcError) as error:
        await get(run, name, id_)
    assert (error.value.reason, error.value.code.name) == (reason, "NOT_FOUND")


async def test_a_list_of_all_sagas_begins_with_the_longest_overdue(run: SagaRun) -> None:
    await run.deliver(written("c"))
    await run.deliver(written("d"), written("e"))
    await run.query("UPDATE sagas SET due_at = now() - interval '1 hour' WHERE id = 'd'")
    everything = await list_keys(run)
    assert everything[:2] == [("collection", "d"), ("reminder", "d")]
    assert everything[2:4] == [("collection", "c"), ("collection", "e")]
    assert everything[4:] == [("reminder", "c"), ("account_watch", "a"), ("reminder", "e")]
    of_reminder = await list_keys(run, saga=REMINDER.name)
    assert of_reminder == [("reminder", "d"), ("reminder", "c"), ("reminder", "e")]


async def test_lists_are_filtered(run: SagaRun) -> None:
    await run.deliver(written("c"), written("d"), written("e"))
    for step in await run.read_due_steps():
        if (step.saga, step.id) == (REMINDER.name, "d"):
            await run.engine.record_reply(step, StepReply(reason="CHEQUE_WORTHLESS"))
    await run.engine.abort(REMINDER.name, "e", "enough", "ada")
    await run.query("UPDATE sagas SET due_at = now() - interval '1 hour' WHERE id = 'c'")
    in_reminder = {"saga": REMINDER.name}
    assert await list_keys(run, **in_reminder, blocked_only=True) == [("reminder", "d")]
    assert await list_keys(run, **in_reminder, open_only=True) == [("reminder", "c"), ("reminder", "d")]
    assert await list_keys(run, **in_reminder, state="GIVEN_UP") == [("reminder", "e")]
    overdue = await list_keys(run, overdue_only=True)
    assert overdue == [("collection", "c"), ("reminder", "c"), ("reminder", "d")]
    assert (await run.reader.count_open())[REMINDER.name] == SagaCounts(2, 2, 1, 0)


async def test_pages_neither_skip_nor_repeat_equal_positions(run: SagaRun) -> None:
    await run.deliver(*(written(f"c-{number}") for number in range(5)))
    await run.query("UPDATE sagas SET due_at = '2020-01-01', began_at = '2020-01-01'")
    keys = await list_keys(run)
    assert len(keys) == len(set(keys)) == 11
    assert keys == sorted(keys, key=lambda key: (key[1], key[0]))


INSTANT = "2026-01-01T00:00:00Z"
ODD_POSITIONS = [
    "junk",
    "{}",
    "[]",
    "null",
    json.dumps([INSTANT, INSTANT, "c"]),
    json.dumps(["2026-01-01T00:00:00", INSTANT, "c", "ledger.collection"]),
    json.dumps([INSTANT, INSTANT, "a\0b", "ledger.collection"]),
    json.dumps([INSTANT, INSTANT, "c", "\0"]),
    json.dumps([INSTANT, "0000-01-01T00:00:00Z", "c", "ledger.collection"]),
    json.dumps([INSTANT, "10000-01-01T00:00:00Z", "c", "ledger.collection"]),
    f'["{INSTANT}", "{INSTANT}", "\\ud800", "ledger.collection"]',
    json.dumps([1e400, INSTANT, "c", "ledger.collection"]),
]


@pytest.mark.parametrize("position", ODD_POSITIONS)
async def test_a_page_token_of_another_build_is_rejected(run: SagaRun, position: str) -> None:
    request = ListSagasRequest()
    list_id = f" {astuple(SagaFilter())}"
    token = TOKENS.mint_page_token(request, list_id, position)
    with pytest.raises(RpcError) as error:
        await call(create_service(run.queries), "ListSagas", page_token=token)
    assert error.value.reason == "PAGE_TOKEN_INVALID"


@pytest.mark.parametrize(
    "instant", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00Z"]
)
async def test_a_page_token_of_an_extreme_time_is_a_page(run: SagaRun, instant: str) -> None:
    position = json.dumps([instant, instant, "c", "ledger.collection"])
    token = TOKENS.mint_page_token(ListSagasRequest(), f" {astuple(SagaFilter())}", position)
    try:
        await call(create_service(run.queries), "ListSagas", page_token=token)
    except RpcError as error:
        assert error.reason == "PAGE_TOKEN_INVALID"


@pytest.mark.parametrize("change", [{"open_only": True}, {"saga": REMINDER.name}, {"state": "CASHING"}])
async def test_a_page_token_of_another_list_is_rejected(run: SagaRun, change: dict[str, Any]) -> None:
    await run.deliver(written("c"), written("d"))
    service = create_service(run.queries)
    token = (await call(service, "ListSagas", page_size=1)).next_page_token
    with pytest.raises(RpcError) as error:
        await call(service, "ListSagas", page_size=1, page_token=token, **change)
    assert error.value.reason == "PAGE_TOKEN_INVALID"


async def test_queries_wait_for_a_consistency_token(run: SagaRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.grpc.waits.DEFAULT_MAX_WAIT", 0.05)
    await run.deliver(written("c"))
    token = mint_token(INCARNATION, {"ledger.cheque.c": 2})
    for method, request in (("GetSaga", {"saga": REMINDER.name, "id": "c"}), ("ListSagas", {})):
        with pytest.raises(RpcError) as error:
            await call(create_service(run.queries), method, at_least_as_fresh=token, **request)
        assert error.value.reason == "VIEW_BEHIND"


async def test_pages_of_limited_size_list_every_instance_once(run: SagaRun) -> None:
    await run.deliver(*(written(f"c-{number}") for number in range(7)))
    await run.query("UPDATE sagas SET blocked_reason = repeat('x', 3000) WHERE id = 'c-1'")
    queries = SagaQueries(run.sagas, run.reader, create_freshness(run), TOKENS, max_page_bytes=500)
    pages = await list_pages(create_service(queries), "ListSagas", page_size=100)
    sizes = [[each.ByteSize() for each in page.sagas] for page in pages]
    assert all(len(page) == 1 or sum(page) <= 500 for page in sizes), sizes
    assert all(sum(page) + following[0] > 500 for page, following in pairwise(sizes)), sizes
    keys = [(each.saga, each.id) for page in pages for each in page.sagas]
    assert len(keys) == len(set(keys)) == 15


async def test_an_instance_shows_its_latest_steps_and_actions_if_it_has_too_many(run: SagaRun) -> None:
    await run.deliver(written("c"))
    for number in range(12):
        for step in await run.read_due_steps():
            if step.saga == LIMITED.name:
                await run.engine.record_reply(step, StepReply(reason=f"{number}-" + "x" * 2_000))
        await run.engine.retry(LIMITED.name, "c", f"ada-{number}")
    whole = await get(run, LIMITED.name, "c")
    assert (len(whole.steps), whole.omitted_step_count, whole.omitted_operator_action_count) == (13, 0, 0)
    assert max(len(step.outcome) for step in whole.steps) == MAX_TEXT_LENGTH
    run.queries = SagaQueries(run.sagas, run.reader, create_freshness(run), TOKENS, max_page_bytes=5_000)
    part = await get(run, LIMITED.name, "c")
    assert 0 < len(part.steps) < 13
    assert part.ByteSize() < 5_500
    assert list(part.steps) == list(whole.steps)[part.omitted_step_count :]
    assert list(part.operator_actions) == list(whole.operator_actions)[part.omitted_operator_action_count :]
    run.queries = SagaQueries(run.sagas, run.reader, create_freshness(run), TOKENS, max_page_bytes=200)
    tiny = await get(run, LIMITED.name, "c")
    assert (len(tiny.steps), len(tiny.operator_actions), len(tiny.timers)) == (1, 1, 1)


@pytest.mark.parametrize("name", ["missing", "missing-role"])
async def test_a_database_that_refuses_connections_is_unavailable(
    run: SagaRun, database_url: str, name: str
) -> None:
    url = make_url(database_url)
    url = url.set(database="missing") if name == "missing" else url.set(username="missing", password="x")
    engine = create_engine(url.render_as_string(hide_password=False))
    queries = SagaQueries([LIMITED], SagaReader(engine), create_freshness(run), TOKENS)
    with pytest.raises(RpcError) as error:
        await call(create_service(queries), "ListSagas")
    assert error.value.reason == "READ_MODEL_UNAVAILABLE"
    await engine.dispose()


async def test_a_closed_connection_is_unavailable(run: SagaRun, database_url: str) -> None:
    engine = create_engine(database_url, pool_size=1)
    async with engine.connect() as connection:
        raw: Any = await connection.get_raw_connection()
        driver = raw.driver_connection
    await driver.close()
    queries = SagaQueries([LIMITED], SagaReader(engine), create_freshness(run), TOKENS)
    with pytest.raises(RpcError) as error:
        await call(create_service(queries), "ListSagas")
    assert error.value.reason == "READ_MODEL_UNAVAILABLE"
    await engine.dispose()
