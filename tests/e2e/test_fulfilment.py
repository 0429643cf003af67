"""Orders fulfilled through the whole stack, with every context in a command server of its own."""

import asyncio
import json
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from diptych.banking.v1.command_service_pb2 import DepositRequest
from diptych.fulfilment.v1 import query_service_pb2 as fulfilment_queries
from diptych.fulfilment.v1.types_pb2 import Fulfilment
from diptych.ordering.v1 import command_service_pb2 as ordering
from diptych.ordering.v1 import query_service_pb2 as ordering_queries
from diptych.sagas.v1 import query_service_pb2 as saga_queries
from google.protobuf.descriptor import MethodDescriptor
from google.type.money_pb2 import Money
from hypothesis import given
from hypothesis import strategies as st

from contracts.key_ring import KeyRing
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import COMMAND_SERVER, PROCESS_MANAGER
from operations.rehearse.installed_code import load_code
from operations.rehearse.recorded import Record
from operations.rehearse.rehearsal import Options, rehearse
from operations.rehearse.report import LINES, Report
from operations.rehearse.stored_views import StoredViews
from operations.rehearse.stream_rehearsal import StreamRehearsal
from process_manager.queries.saga_reader import SagaReader
from process_manager.sagas.fulfilment import FULFILMENT
from tests.e2e.test_fuzz import ELSEWHERE, answered_clearly, fields_answered_clearly, name_of, some
from tests.support.harness.caller import Caller
from tests.support.harness.callers import bearer
from tests.support.harness.command_line import diptych
from tests.support.harness.contexts import CONTEXTS
from tests.support.harness.invariants import verify_stack
from tests.support.harness.planted_changes import Change, list_differences, plant, rehearse_copy
from tests.support.harness.process_managers import Call, FaultyClient, run_managers, wait_for_status
from tests.support.harness.shop import order_of
from tests.support.harness.trade import PRICE, SCOPES, Trade
from tests.support.harness.waiting import until

CONFIRMATION_STEPS = ("assess", "reserve", "hold_money", "firm_stock", "firm_money", "confirm")
DELIVERY_STEPS = ("commit_stock", "capture_money", "refund", "restock")
"""Steps of an order that is shipped and returned."""
SAGA = ("--saga", FULFILMENT.name)
"""An option of `diptych sagas`, because an order may have other sagas, too."""
PLANTED = (
    Change(
        "command_server/contexts/ordering/domain/order.py",
        "return replace(order, status=Status.CONFIRMED)",
        "return replace(order, status=Status.SHIPPED)",
        ("states", "ordering.order.status"),
    ),
    Change(
        "projector/projections/banking/hold.py",
        "    hold.captured.CopyFrom(event.amount)\n",
        "",
        ("views", "banking.hold.captured"),
    ),
    Change(
        "process_manager/sagas/fulfilment/requests.py",
        "CLAIM_LIFETIME = timedelta(hours=1)",
        "CLAIM_LIFETIME = timedelta(hours=2)",
        ("steps", "fulfilment.fulfilment.reserve.deadline"),
    ),
)
FALLIBLE_STEPS = ("reserve", "hold_money", "firm_stock", "firm_money")


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    stack = temporary_stack(tmp_path_factory.mktemp("fulfilment"), command_servers=0, operations_servers=1)
    servers = {c.name: stack.add(COMMAND_SERVER, ["--contexts", c.name]) for c in CONTEXTS}
    targets = ",".join(f"{context}={server.address}" for context, server in servers.items())
    for _ in range(2):
        stack.add(PROCESS_MANAGER, environment={"DIPTYCH_COMMAND_TARGETS": targets})
    stack.settings = stack.settings.model_copy(update={"command_targets": targets})
    async with stack:
        yield stack


@pytest.fixture
async def trade(stack: Stack) -> AsyncIterator[Trade]:
    servers = dict(zip((context.name for context in CONTEXTS), stack.of(COMMAND_SERVER), strict=True))
    caller = Caller(stack, *SCOPES, apart=servers)
    yield Trade(caller)
    await caller.close()


@pytest.mark.parametrize(
    ("process", "path"),
    [
        (COMMAND_SERVER, "/diptych.banking.v1.CommandService/Deposit"),
        (PROCESS_MANAGER, "/diptych.sagas.v1.QueryService/GetSaga"),
    ],
)
async def test_unauthenticated_calls_are_counted_and_listed(stack: Stack, process: Any, path: str) -> None:
    servers = dict(zip((context.name for context in CONTEXTS), stack.of(COMMAND_SERVER), strict=True))
    server = servers["banking"] if process is COMMAND_SERVER else stack.of(process)[0]
    async with grpc.aio.insecure_channel(server.address) as channel:
        call: Any = channel.unary_unary(path)
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
                await call(b"", metadata=bearer("no token"))

    async def is_listed() -> bool:
        code, out, err = await diptych(stack, "refused", "--since", "5m", "--json", "--limit", "0")
        assert code == 0, err
        entries = [json.loads(line) for line in out.splitlines()]
        chosen = [each for each in entries if (each["cause"], each["method"]) == ("MALFORMED", path)]
        return bool(sum(each["calls"] for each in chosen) == 3)

    await until(is_listed, seconds=75)  # counts are written once a minute


async def test_orders_end_confirmed_or_rejected_with_the_reason(trade: Trade) -> None:
    sku, poor, rich = (
        await trade.create_product(9),
        await trade.open_account(1),
        await trade.open_account(1_000),
    )
    rejected = await trade.place_order(
        sku, poor
    )  # first, since its short-lived reservation could fail other orders
    assert await trade.wait_for_state(rejected, "REJECTED", "CONFIRMED") == "REJECTED"
    unpaid = await trade.get_fulfilment(rejected)
    assert unpaid and unpaid.rejection == "FUNDS_INSUFFICIENT"
    await trade.wait_for_stock(sku, (9, 0))
    orders = await asyncio.gather(*(trade.place_order(sku, rich) for _ in range(4)))
    ends = [await trade.wait_for_state(order, "REJECTED", "CONFIRMED") for order in orders]
    assert sorted(ends) == ["CONFIRMED"] * 3 + ["REJECTED"]
    out_of_stock = await trade.get_fulfilment(orders[ends.index("REJECTED")])
    assert out_of_stock and out_of_stock.rejection == "STOCK_INSUFFICIENT"
    await trade.wait_for_stock(sku, (9, 9))
    await trade.wait_for_account(rich, (1_000, 3 * PRICE))
    confirmed = orders[ends.index("CONFIRMED")]
    await trade.ship(confirmed)
    assert await trade.wait_for_state(confirmed, "FULFILLED") == "FULFILLED"
    await trade.wait_for_stock(sku, (6, 6))
    await trade.wait_for_account(rich, (1_000 - PRICE, 2 * PRICE))


async def test_a_fulfilment_includes_the_order_command_of_a_token_and_is_watched(trade: Trade) -> None:
    sku, rich = await trade.create_product(9), await trade.open_account(1_000)
    for _ in range(3):
        order = await trade.place_order(sku, rich)
        assert (await trade.get_fulfilment_of(order)).order_version >= 1
    states = []
    async for response in trade.caller.watch(fulfilment_queries.WatchFulfilmentRequest(order_id=order)):
        states.append(response.fulfilment.state)
        if response.fulfilment.state == Fulfilment.STATE_CONFIRMED:
            break
    assert states == sorted(set(states))
    assert response.fulfilment.waiting_for == "shipment"


async def test_fulfilments_are_listed_by_state_and_shown_to_operators(stack: Stack, trade: Trade) -> None:
    sku, poor = await trade.create_product(3), await trade.open_account(1)
    order = await trade.place_order(sku, poor)
    await trade.wait_for_state(order, "REJECTED")
    request = fulfilment_queries.ListFulfilmentsRequest(state=Fulfilment.STATE_REJECTED, page_size=100)
    fulfilments = (await trade.caller.query(request)).fulfilments
    assert order in {fulfilment.order_id for fulfilment in fulfilments}
    assert {fulfilment.state for fulfilment in fulfilments} == {Fulfilment.STATE_REJECTED}
    saga = saga_queries.GetSagaRequest(saga=FULFILMENT.name, id=order)
    shown = (await trade.caller.query(saga)).saga
    fulfilment = await trade.get_fulfilment(order)
    assert fulfilment is not None
    assert f"STATE_{shown.state}" == Fulfilment.State.Name(fulfilment.state)
    assert fulfilment.order_version == shown.streams[0].version
    code, out, _ = await diptych(stack, "sagas", "list", "--state", "rejected", "--limit", "0")
    assert (code, order in out) == (0, True)
    code, out, _ = await diptych(stack, "sagas", "show", order, *SAGA)
    assert (code, out.splitlines()[0].split(": ")[1][:8]) == (0, "REJECTED")
    assert "FUNDS_INSUFFICIENT, answered" in out
    code, _, err = await diptych(stack, "sagas", "abort", order, *SAGA, "--reason", "enough")
    assert (code, err.startswith("Error: ACTION_NOT_POSSIBLE: ")) == (1, True), err
    assert "cannot abort: the order is REJECTED)" in err
    code, _, err = await diptych(stack, "sagas", "retry", "nobody", "--reason", "a test")
    assert (code, err.startswith("Error: SAGA_NOT_FOUND: ")) == (1, True), err


async def test_an_order_that_was_confirmed_past_its_review_spends_nothing(stack: Stack, trade: Trade) -> None:
    sku, rich = await trade.create_product(9), await trade.open_account(1_000_000)
    approved = await trade.place_past_review(sku, rich, 300_000)
    aborted = await trade.place_past_review(sku, rich, 300_000, ship=True)
    for order, status in ((approved, "confirmed"), (aborted, "shipped")):
        assert await trade.wait_for_state(order, "BLOCKED") == "BLOCKED"
        blocked = f"{status}, but nobody has approved it: its total is 300000 EUR"
        fulfilment = await trade.get_fulfilment(order)
        assert fulfilment and (fulfilment.blocked_reason, fulfilment.hold_id) == (blocked, "")
        card = ordering_queries.GetOrderCardRequest(order_id=order)
        assert (await trade.caller.query(card)).card.fulfilment.state == Fulfilment.STATE_BLOCKED
    listed = fulfilment_queries.ListFulfilmentsRequest(state=Fulfilment.STATE_BLOCKED)
    found = {each.order_id for each in (await trade.caller.query(listed)).fulfilments}
    assert found >= {approved, aborted}
    code, out, _ = await diptych(stack, "sagas", "list", "--blocked", "--limit", "0")
    assert (code, approved in out, aborted in out) == (0, True, True)
    await trade.wait_for_stock(sku, (9, 0))
    await trade.wait_for_account(rich, (1_000_000, 0))
    await trade.caller.execute(ordering.ApproveOrderRequest(order_id=approved))
    code, _, err = await diptych(stack, "sagas", "abort", aborted, *SAGA, "--reason", "fraud")
    assert code == 0, err
    assert await trade.wait_for_state(approved, "CONFIRMED") == "CONFIRMED"
    assert await trade.wait_for_state(aborted, "ABORTED") == "ABORTED"
    await trade.wait_for_stock(sku, (9, 3))
    await trade.wait_for_account(rich, (1_000_000, 300_000))


async def test_a_strangers_account_pays_for_no_order(stack: Stack, trade: Trade) -> None:
    sku, strangers = await trade.create_product(3 * 9), await trade.open_account(1_000)
    servers = dict(zip((context.name for context in CONTEXTS), stack.of(COMMAND_SERVER), strict=True))
    scopes = (f"{context}.own" for context in ("ordering", "fulfilment"))
    mallory = Caller(
        stack, *SCOPES[:2], "ordering.confirm", "fulfilment.read", *scopes, apart=servers, subject="mallory"
    )
    rejected, confirmed = (order_of("mallory", order_id=uuid4().hex) for _ in range(2))
    for request in (rejected, confirmed):
        request.account_id, request.lines[0].sku = strangers, sku
        await mallory.execute(request)
    await mallory.execute(ordering.ConfirmOrderRequest(order_id=confirmed.order_id))
    await trade.ship(confirmed.order_id)
    assert await trade.wait_for_state(rejected.order_id, "REJECTED") == "REJECTED"
    own = fulfilment_queries.GetFulfilmentRequest(order_id=rejected.order_id)
    assert (await mallory.query(own)).fulfilment.rejection == "MANDATE_MISSING"
    of_another = fulfilment_queries.GetFulfilmentRequest(order_id=await trade.place_order(sku, strangers))
    await trade.wait_for_state(of_another.order_id, "CONFIRMED")
    assert await mallory.rejection_reason(of_another) == "FULFILMENT_NOT_FOUND"

    async def is_blocked() -> bool:
        blocked = await trade.get_fulfilment(confirmed.order_id)
        return blocked is not None and blocked.blocked_reason == "confirmed, but MANDATE_MISSING"

    await until(is_blocked)
    await trade.wait_for_account(strangers, (1_000, PRICE))
    await mallory.close()


async def test_open_claims_are_released_after_their_deadline(trade: Trade) -> None:
    sku, account = await trade.create_product(3), await trade.open_account(PRICE)
    claim_id = await trade.claim_without_order(sku, account, timedelta(seconds=1))

    async def is_released() -> bool:
        return await trade.release_reasons(claim_id) == {"its deadline has passed"}

    await until(is_released)
    await trade.wait_for_stock(sku, (3, 0))
    await trade.wait_for_account(account, (PRICE, 0))


@pytest.mark.parametrize("method", ELSEWHERE, ids=name_of)
@some
@given(data=st.data())
def test_every_query_is_answered_clearly(stack: Stack, method: MethodDescriptor, data: Any) -> None:
    answered_clearly(stack, method, data)


async def test_every_value_of_every_field_of_a_query_is_answered_clearly(stack: Stack) -> None:
    await fields_answered_clearly(stack, ELSEWHERE)


# Runs before `faulty_manager` replaces the process managers: it kills and restarts them.
@pytest.mark.parametrize("kills", [3, pytest.param(12, marks=pytest.mark.long)])
async def test_orders_end_well_while_servers_and_managers_are_killed(
    stack: Stack, trade: Trade, kills: int
) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    sku, account = await trade.create_product(3 * 9), await trade.open_account(PRICE * 7)

    async def kill() -> None:
        for _ in range(kills):
            victim = chance.choice([*stack.of(PROCESS_MANAGER), *stack.of(COMMAND_SERVER)])
            await victim.kill()
            await victim.start()

    task = asyncio.create_task(kill())
    orders = []
    for _ in range(12):
        orders.append(await trade.place_order(sku, account))
        await asyncio.sleep(chance.uniform(0, 0.4))
    await task
    ends = Counter([await trade.wait_for_state(order, "CONFIRMED", "REJECTED") for order in orders])
    assert ends["CONFIRMED"] == 7, "seven can be paid, and nine can be delivered"
    await trade.wait_for_stock(sku, (3 * 9, 3 * 7))
    await trade.wait_for_account(account, (PRICE * 7, PRICE * 7))
    report = await verify_stack(stack)
    assert report.clean, report.to_text()


@pytest.fixture(scope="module")
async def faulty_manager(stack: Stack) -> AsyncIterator[tuple[FaultyClient, SagaReader]]:
    """Replaces the process managers of the stack by one in the test's process, with a faulty client."""
    await asyncio.gather(*(manager.kill() for manager in stack.of(PROCESS_MANAGER)))
    client = FaultyClient(stack.settings)
    async with run_managers(stack.settings, client) as sagas:
        yield client, sagas
    await asyncio.gather(*(manager.start() for manager in stack.of(PROCESS_MANAGER)))


async def test_any_reply_may_be_lost_and_the_manager_killed_after_any_step(
    faulty_manager: tuple[FaultyClient, SagaReader], trade: Trade, stack: Stack
) -> None:
    client, sagas = faulty_manager
    orders: list[tuple[str, str, str]] = []
    lost, killed_after = set[Call](), set[Call]()
    for step in (*CONFIRMATION_STEPS, *DELIVERY_STEPS):
        for expected, inject in ((lost, client.lose_replies), (killed_after, client.kill_after)):
            sku, account = await trade.create_product(3), await trade.open_account(PRICE)
            order = await trade.place_order(sku, account, before=partial(inject, step=step))
            expected.add((order, step))
            orders.append((sku, account, order))

    async def wait_for_all(status: str, stock: tuple[int, int], money: tuple[int, int]) -> None:
        for sku, account, order in orders:
            await wait_for_status(sagas, order, status)
            await trade.wait_for_stock(sku, stock)
            await trade.wait_for_account(account, money)

    await wait_for_all("CONFIRMED", (3, 3), (PRICE, PRICE))
    await asyncio.gather(*(trade.ship(order) for _, _, order in orders))
    await wait_for_all("FULFILLED", (0, 0), (0, 0))
    await asyncio.gather(*(trade.return_order(order) for _, _, order in orders))
    await wait_for_all("RETURNED", (3, 0), (PRICE, 0))
    assert (client.lost, client.killed_after) == (lost, killed_after)
    report = await verify_stack(stack)
    assert report.clean, report.to_text()


async def test_a_rejected_step_ends_the_order_without_claims(
    faulty_manager: tuple[FaultyClient, SagaReader], trade: Trade
) -> None:
    client, sagas = faulty_manager
    sku, account = await trade.create_product(3), await trade.open_account(PRICE)
    for step in FALLIBLE_STEPS:
        order = await trade.place_order(sku, account, before=partial(client.reject, step=step))
        await wait_for_status(sagas, order, "REJECTED")
        await trade.wait_for_stock(sku, (3, 0))
        await trade.wait_for_account(account, (PRICE, 0))


async def test_a_rehearsal_of_the_running_code_finds_no_difference(stack: Stack) -> None:
    report = await rehearse(stack.settings, Options())
    assert (report.to_json(), report.notes) == (Report(report.counts).to_json(), {})
    assert {kind for kind in LINES if not report.counts[kind]} <= {"timers"}


async def test_views_that_move_during_a_rehearsal_are_compared_again(stack: Stack, trade: Trade) -> None:
    ring = KeyRing.parse(await asyncio.to_thread(Path(stack.settings.keys).read_bytes))
    code, record = load_code(stack.settings), Record(stack.settings.database_url, lambda: ring)
    account_id = await trade.open_account(PRICE)
    await trade.wait_for_account(account_id, (PRICE, 0))
    await record.begin()
    amount = Money(currency_code="EUR", units=1)
    await trade.caller.execute(DepositRequest(account_id=account_id, amount=amount, reference="more"))
    await trade.wait_for_account(account_id, (PRICE + 1, 0))
    async with StoredViews(stack.settings.redis_url) as views:
        serving = await views.find_serving([each.view for each in code.list_projections()])
        rehearsal = StreamRehearsal(code, record, views, serving)
        stream = f"banking.account.{account_id}"
        first = await rehearsal.rehearse({stream: 2})
        again = await rehearsal.rehearse_again(first.moved)
    await record.close()
    assert (stream, "banking.account") in first.moved
    assert (first.report.counts["views"], again.report.counts["views"]) == (0, len(first.moved))
    assert not first.report.differences | again.report.differences


async def test_a_rehearsal_finds_changed_lines(stack: Stack, tmp_path: Path) -> None:
    plant(tmp_path, *PLANTED)
    code, report = await rehearse_copy(stack, tmp_path)
    assert code == 1
    assert {change.finds for change in PLANTED} <= list_differences(report)
