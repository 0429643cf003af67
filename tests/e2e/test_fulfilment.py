"""Orders fulfilled through the whole stack, with every context in a command server of its own."""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from diptych.fulfilment.v1 import query_service_pb2 as fulfilment
from diptych.fulfilment.v1.types_pb2 import Fulfilment
from google.protobuf.descriptor import MethodDescriptor
from hypothesis import given
from hypothesis import strategies as st

from command_server.__main__ import CONTEXTS
from devstack.stack import Stack
from devstack.stacks import throwaway
from operations.processes import COMMAND_SERVER, PROCESS_MANAGER
from process_manager.saga_reader import SagaReader
from tests.e2e.test_commandline import diptych
from tests.e2e.test_fuzz import ELSEWHERE, answered_clearly, name_of, some
from tests.support.harness.caller import Caller
from tests.support.harness.invariants import verified
from tests.support.harness.process_managers import Breaking, Call, managed, rests
from tests.support.harness.trade import PRICE, SCOPES, Trade
from tests.support.harness.waiting import until

STEPS = ("assess", "reserve", "hold_money", "firm_stock", "firm_money", "confirm")
LATER = ("commit_stock", "capture_money", "refund", "restock")
"""Steps of an order that is shipped, and returned."""
MAY_BE_REFUSED = ("reserve", "hold_money", "firm_stock", "firm_money")


@pytest.fixture(scope="module")
async def company(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    stack = throwaway(tmp_path_factory.mktemp("company"), command_servers=0)
    servers = {c.name: stack.add(COMMAND_SERVER, ["--contexts", c.name]) for c in CONTEXTS}
    targets = ",".join(f"{context}={server.address}" for context, server in servers.items())
    for _ in range(2):
        stack.add(PROCESS_MANAGER, environment={"DIPTYCH_COMMAND_TARGETS": targets})
    stack.settings = stack.settings.model_copy(update={"command_targets": targets})
    async with stack:
        yield stack


@pytest.fixture
async def trade(company: Stack) -> AsyncIterator[Trade]:
    servers = dict(zip((context.name for context in CONTEXTS), company.of(COMMAND_SERVER), strict=True))
    caller = Caller(company, *SCOPES, apart=servers)
    yield Trade(caller)
    await caller.close()


async def test_orders_end_confirmed_or_rejected_with_the_reason(trade: Trade) -> None:
    sku, poor, rich = await trade.product(9), await trade.account(1), await trade.account(1_000)
    bad = await trade.place(sku, poor)  # first, since what it has reserved for a moment others lack
    assert await trade.ends(bad, "REJECTED", "CONFIRMED") == "REJECTED"
    found = await trade.fulfilment(bad)
    assert found and found.rejection == "FUNDS_INSUFFICIENT"
    await trade.shows(sku, (9, 0))
    orders = await asyncio.gather(*(trade.place(sku, rich) for _ in range(4)))
    ends = [await trade.ends(order, "REJECTED", "CONFIRMED") for order in orders]
    assert sorted(ends) == ["CONFIRMED"] * 3 + ["REJECTED"]
    lacking = await trade.fulfilment(orders[ends.index("REJECTED")])
    assert lacking and lacking.rejection == "STOCK_INSUFFICIENT"
    await trade.shows(sku, (9, 9))
    await trade.shows_account(rich, (1_000, 3 * PRICE))
    confirmed = orders[ends.index("CONFIRMED")]
    await trade.ship(confirmed)
    assert await trade.ends(confirmed, "FULFILLED") == "FULFILLED"
    await trade.shows(sku, (6, 6))
    await trade.shows_account(rich, (1_000 - PRICE, 2 * PRICE))


async def test_fulfilments_are_listed_by_state_and_shown_to_operators(company: Stack, trade: Trade) -> None:
    sku, poor = await trade.product(3), await trade.account(1)
    order = await trade.place(sku, poor)
    await trade.ends(order, "REJECTED")
    rejected = fulfilment.ListFulfilmentsRequest(state=Fulfilment.STATE_REJECTED, page_size=100)
    listed = (await trade.caller.ask(rejected)).fulfilments
    assert order in {one.order_id for one in listed}
    assert {one.state for one in listed} == {Fulfilment.STATE_REJECTED}
    code, out, _ = await diptych(company, "sagas", "list", "--state", "rejected")
    assert (code, order in out) == (0, True)
    code, out, _ = await diptych(company, "sagas", "show", order)
    assert (code, out.splitlines()[0].split(": ")[1][:8]) == (0, "REJECTED")
    assert [word for line in out.splitlines() for word in line.split() if word == "FUNDS_INSUFFICIENT"]
    code, _, err = await diptych(company, "sagas", "abort", order, "--reason", "enough")
    assert (code, err) == (1, "Error: an order that is REJECTED cannot be aborted, cancel it\n")
    code, _, err = await diptych(company, "sagas", "retry", "nobody")
    assert (code, err) == (1, "Error: there is no saga nobody\n")


async def test_what_nobody_makes_firm_is_let_go_after_its_deadline(trade: Trade) -> None:
    sku, account = await trade.product(3), await trade.account(PRICE)
    kept = await trade.keep(sku, account, timedelta(seconds=1))

    async def over() -> bool:
        return await trade.why_released(kept) == {"its deadline has passed"}

    await until(over)
    await trade.shows(sku, (3, 0))
    await trade.shows_account(account, (PRICE, 0))


@pytest.mark.parametrize("method", ELSEWHERE, ids=name_of)
@some
@given(data=st.data())
def test_every_question_is_answered_clearly(company: Stack, method: MethodDescriptor, data: Any) -> None:
    answered_clearly(company, method, data)


@pytest.fixture(scope="module")
async def breaking(company: Stack) -> AsyncIterator[tuple[Breaking, SagaReader]]:
    """The stack with a manager of the test's instead of its own."""
    await asyncio.gather(*(manager.kill() for manager in company.of(PROCESS_MANAGER)))
    caller = Breaking(company.settings)
    async with managed(company.settings, caller) as sagas:
        yield caller, sagas
    await asyncio.gather(*(manager.start() for manager in company.of(PROCESS_MANAGER)))


async def test_every_answer_may_be_lost_and_the_manager_end_after_every_step(
    breaking: tuple[Breaking, SagaReader], trade: Trade, company: Stack
) -> None:
    calls, sagas = breaking
    orders: list[tuple[str, str, str]] = []
    lost, ended = set[Call](), set[Call]()
    for step in (*STEPS, *LATER):
        for wanted, make in ((lost, calls.lose), (ended, calls.end_after)):
            sku, account = await trade.product(3), await trade.account(PRICE)
            order = await trade.place(sku, account, before=partial(make, step=step))
            wanted.add((order, step))
            orders.append((sku, account, order))

    async def all_are(status: str, stock: tuple[int, int], money: tuple[int, int]) -> None:
        for sku, account, order in orders:
            await rests(sagas, order, status)
            await trade.shows(sku, stock)
            await trade.shows_account(account, money)

    await all_are("CONFIRMED", (3, 3), (PRICE, PRICE))
    await asyncio.gather(*(trade.ship(order) for _, _, order in orders))
    await all_are("FULFILLED", (0, 0), (0, 0))
    await asyncio.gather(*(trade.give_back(order) for _, _, order in orders))
    await all_are("RETURNED", (3, 0), (PRICE, 0))
    assert (calls.lost, calls.ended) == (lost, ended)
    report = await verified(company)
    assert report.clean, report.page()


async def test_every_step_that_may_be_refused_ends_the_order_with_nothing_left(
    breaking: tuple[Breaking, SagaReader], trade: Trade
) -> None:
    calls, sagas = breaking
    sku, account = await trade.product(3), await trade.account(PRICE)
    for step in MAY_BE_REFUSED:
        order = await trade.place(sku, account, before=partial(calls.refuse, step=step))
        await rests(sagas, order, "REJECTED")
        await trade.shows(sku, (3, 0))
        await trade.shows_account(account, (PRICE, 0))


async def test_orders_end_well_while_servers_and_managers_are_killed(company: Stack, trade: Trade) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    sku, account = await trade.product(3 * 9), await trade.account(PRICE * 7)

    async def kill() -> None:
        for _ in range(6):
            victim = chance.choice([*company.of(PROCESS_MANAGER), *company.of(COMMAND_SERVER)])
            await victim.kill()
            await victim.start()

    killing = asyncio.create_task(kill())
    orders = []
    for _ in range(12):
        orders.append(await trade.place(sku, account))
        await asyncio.sleep(chance.uniform(0, 0.4))
    await killing
    ends = Counter([await trade.ends(order, "CONFIRMED", "REJECTED") for order in orders])
    assert ends["CONFIRMED"] == 7, "seven can be paid, and nine can be delivered"
    await trade.shows(sku, (3 * 9, 3 * 7))
    await trade.shows_account(account, (PRICE * 7, PRICE * 7))
    report = await verified(company)
    assert report.clean, report.page()
