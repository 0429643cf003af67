"""A process manager with a token of another subject: it does not start, and no step has its effect twice."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from devstack import tokens
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import COMMAND_SERVER, PROCESS_MANAGER
from operations.saga_callers import change_caller
from process_manager.postgres.store import SagaStore
from process_manager.queries.saga_reader import SagaReader
from process_manager.saga import Saga
from process_manager.sagas.fulfilment import FULFILMENT
from process_manager.scopes import required_scopes
from runtime.process.contexts import choose_contexts, load_parts
from runtime.process.start_error import StartError
from tests.support.harness.caller import Caller
from tests.support.harness.invariants import verify_stack
from tests.support.harness.tcp_proxy import TcpProxy
from tests.support.harness.trade import SCOPES, Trade
from tests.support.harness.waiting import until

pytestmark = pytest.mark.long
FUNDS = 1_000


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with temporary_stack(tmp_path) as stack:
        yield stack


def replace_token(stack: Stack, subject: str) -> None:
    sagas = load_parts(choose_contexts(stack.settings), "sagas", "SAGAS", Saga)
    token = tokens.mint(stack.settings, required_scopes(sagas), subject, timedelta(hours=1))
    Path(stack.settings.process_manager_token).write_text(token)


async def wait_for_tried_step(store: SagaStore, order: str, step: str) -> None:
    """Wait until a step was sent and its answer did not arrive."""
    reader = SagaReader(store.engine)

    async def was_tried() -> bool:
        details = await reader.find(FULFILMENT.name, order)
        assert details is not None
        return any(each.step == step and each.tries and not each.outcome for each in details.steps)

    await until(was_tried, 60)


async def wait_until_expired(store: SagaStore) -> None:
    """Wait until the killed manager is no longer a member of its group."""

    async def has_expired() -> bool:
        async with store.engine.connect() as connection:
            return not await connection.scalar(text("SELECT count(*) FROM saga_managers WHERE until > now()"))

    await until(has_expired)


async def test_a_refund_is_paid_once_although_another_subject_repeats_it(stack: Stack) -> None:
    replace_token(stack, "first")
    store = SagaStore(stack.settings.database_url)
    async with TcpProxy(int(stack.of(COMMAND_SERVER)[0].address.rpartition(":")[2])) as proxy:
        targets = {"DIPTYCH_COMMAND_TARGETS": f"banking=127.0.0.1:{proxy.port}"}
        manager = stack.add(PROCESS_MANAGER, environment=targets)
        await manager.start()
        trade = Trade(Caller(stack, *SCOPES))
        sku, account = await trade.create_product(9), await trade.open_account(FUNDS)
        order = await trade.place_order(sku, account)
        await trade.wait_for_state(order, "CONFIRMED")
        await trade.ship(order)
        await trade.wait_for_state(order, "FULFILLED")
        proxy.drops_answers = True
        await trade.return_order(order)
        await trade.wait_for_account(account, (FUNDS, 0))
        await wait_for_tried_step(store, order, "refund")
        await manager.kill()

        replace_token(stack, "second")
        with pytest.raises(StartError, match=r"code 1: .* subject is second, but .* are sent as first"):
            await manager.start()
        await wait_until_expired(store)
        with pytest.raises(StartError, match=r"fulfilment\.fulfilment has 1 unanswered steps of first"):
            await change_caller(stack.settings, "second", "", repeat_unanswered=False)
        await change_caller(stack.settings, "second", "", repeat_unanswered=True)
        proxy.drops_answers = False
        await manager.start()
        assert await trade.wait_for_state(order, "RETURNED") == "RETURNED"
        await trade.wait_for_account(account, (FUNDS, 0))
        await trade.caller.close()
    report = await verify_stack(stack)
    assert report.clean, report.to_text()
    await store.close()
