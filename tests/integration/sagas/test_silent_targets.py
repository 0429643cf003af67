"""Steps to a service that hangs, refuses or is slow, on the real PostgreSQL and over a real connection."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from process_manager.dispatch.step_client import StepClient
from process_manager.dispatch.step_dispatcher import StepDispatcher
from process_manager.dispatch.step_queue import key_of
from process_manager.dispatch.targets import PLACES, target_of
from process_manager.dispatch.timer_dispatcher import TimerDispatcher
from process_manager.leases import Leases
from process_manager.metrics import STEP_ATTEMPTS, TARGET_SILENT
from process_manager.postgres.store import SagaStore
from runtime.process.settings import Settings
from tests.support.harness.saga_run import ALL_PARTITIONS, SagaRun, written
from tests.support.harness.tcp_proxy import TcpProxy
from tests.support.harness.waiting import until
from tests.support.ledger.sagas import COLLECTION
from tests.support.ledger.stubs import commands

SILENT = "acme.ledger.v1.CommandService"


class Ledger:
    """A service that answers each CashCheque after `pause` seconds, and records the request ids."""

    def __init__(self) -> None:
        self.pause, self.concurrent, self.most = 0.0, 0, 0
        self.request_ids: list[str] = []
        self.hangs_for: set[str] = set()

    async def cash(self, request: Any, _context: object) -> Any:
        self.request_ids.append(request.request_id)
        self.concurrent += 1
        self.most = max(self.most, self.concurrent)
        try:
            await asyncio.sleep(60 if request.cheque_id in self.hangs_for else self.pause)
        finally:
            self.concurrent -= 1
        return commands.CashChequeResponse()


@pytest.fixture
async def ledger() -> AsyncIterator[tuple[Ledger, TcpProxy]]:
    """A ledger behind a proxy that can hang, refuse, or lose a connection."""
    ledger, server = Ledger(), grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        ledger.cash,
        commands.CashChequeRequest.FromString,
        commands.CashChequeResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SILENT, {"CashCheque": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with TcpProxy(port) as proxy:
        yield ledger, proxy
        await proxy.stop()
        await server.stop(None)


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("process_manager.dispatch.targets.CALL_TIMEOUT", 0.5)
    monkeypatch.setattr("process_manager.dispatch.targets.SLOW_TIMEOUT", 2.0)
    yield


@pytest.fixture(autouse=True)
def no_measurements() -> None:
    for metric in (STEP_ATTEMPTS, TARGET_SILENT):
        metric.clear()


@pytest.fixture
def run(store: SagaStore) -> SagaRun:
    return SagaRun(store, COLLECTION)


@asynccontextmanager
async def dispatching(run: SagaRun, proxy: TcpProxy, folder: Path) -> AsyncIterator[Leases]:
    token, stopping, leases = folder / "token", asyncio.Event(), Leases(run.store, "ledger")
    token.write_text("token")
    client = StepClient(Settings(command_address=f"127.0.0.1:{proxy.port}", process_manager_token=str(token)))
    await leases.renew()
    timers = TimerDispatcher(run.engine, run.store, leases, run.create_preceding(), run.deadlines)
    async with asyncio.TaskGroup() as group:
        group.create_task(StepDispatcher(run.engine, run.store, client, leases).run(stopping))
        group.create_task(timers.run(stopping))
        group.create_task(leases.run(stopping))
        try:
            yield leases
        finally:
            stopping.set()
    await leases.leave()
    await run.deadlines.close()
    await client.close()


async def count_answered(run: SagaRun) -> int:
    return int((await run.query("SELECT count(*) FROM saga_steps WHERE outcome = 'OK'"))[0][0])


async def wait_until_all_answered(run: SagaRun, count: int) -> None:
    async def are_answered() -> bool:
        return await count_answered(run) == count

    await until(are_answered)


@pytest.mark.parametrize(
    "fault",
    [
        "hangs",
        pytest.param("refuses", marks=pytest.mark.long),
        pytest.param("loses its connections", marks=pytest.mark.long),
    ],
)
async def test_a_silent_target_is_probed_and_then_gets_its_steps(
    run: SagaRun, ledger: tuple[Ledger, TcpProxy], tmp_path: Path, fault: str
) -> None:
    service, proxy = ledger
    await run.deliver(*(written(f"c-{number}") for number in range(60)))
    if fault == "refuses":
        await proxy.stop()
    else:
        proxy.flowing.clear()

    async def is_on_record() -> bool:
        return bool(await run.reader.read_silent_targets())

    async def is_not_on_record() -> bool:
        return not await is_on_record()

    async with dispatching(run, proxy, tmp_path) as leases:
        await until(is_on_record)
        (silent,) = await run.reader.read_silent_targets()
        assert (silent.target, silent.waiting) == (SILENT, 60)
        assert TARGET_SILENT.read_values() == {(SILENT,): 1}
        assert STEP_ATTEMPTS.sums.keys() == {(SILENT, "unknown")}
        details = await run.reader.find(COLLECTION.name, "c-0")
        assert details is not None
        assert details.row.waiting_for == f"the reply to cash ({SILENT} does not answer)"
        if fault == "loses its connections":
            proxy.flowing = asyncio.Event()  # the present connections never forward anything again
            proxy.flowing.set()
        elif fault == "hangs":
            proxy.flowing.set()
        else:
            await proxy.start()
        await wait_until_all_answered(run, 60)
        assert not leases.silent_targets
        assert TARGET_SILENT.read_values() == {(SILENT,): 0}
        assert STEP_ATTEMPTS.sums[SILENT, "accepted"] == 60
        await until(is_not_on_record)
    assert len(set(service.request_ids)) == 60
    assert service.most <= PLACES


async def test_a_target_whose_steps_have_gone_is_no_longer_silent(
    run: SagaRun, ledger: tuple[Ledger, TcpProxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("process_manager.dispatch.targets.IDLE_TIME", 2.0)
    _, proxy = ledger
    await proxy.stop()
    await run.deliver(written("c-1"))
    async with dispatching(run, proxy, tmp_path) as leases:
        await until(lambda: SILENT in leases.silent_targets)
        await run.query("DELETE FROM saga_steps")
        await until(lambda: not leases.silent_targets)
        assert TARGET_SILENT.read_values() == {(SILENT,): 0}


@pytest.mark.long
async def test_a_target_that_answers_late_is_served_all_the_same(
    run: SagaRun, ledger: tuple[Ledger, TcpProxy], tmp_path: Path
) -> None:
    service, proxy = ledger
    service.pause = 1.0  # longer than CALL_TIMEOUT, shorter than SLOW_TIMEOUT
    await run.deliver(*(written(f"c-{number}") for number in range(20)))
    async with dispatching(run, proxy, tmp_path):
        await wait_until_all_answered(run, 20)


@pytest.mark.long
async def test_one_request_that_is_never_answered_does_not_stop_the_others(
    run: SagaRun, ledger: tuple[Ledger, TcpProxy], tmp_path: Path
) -> None:
    service, proxy = ledger
    service.hangs_for = {f"bad-{number}" for number in range(5)}
    await run.deliver(*map(written, sorted(service.hangs_for)))
    async with dispatching(run, proxy, tmp_path) as leases:
        await until(lambda: SILENT in leases.silent_targets)
        await run.deliver(*(written(f"good-{number}") for number in range(20)))
        await wait_until_all_answered(run, 20)


async def test_steps_of_a_target_without_places_hide_no_other_steps_and_cost_nothing(run: SagaRun) -> None:
    await run.deliver(*(written(f"c-{number}") for number in range(300)))
    await run.query("UPDATE saga_steps SET due_at = due_at - interval '1 hour'")
    await run.query("UPDATE saga_steps SET method = '/other.v1.CommandService/Do' WHERE id IN ('c-7', 'c-8')")

    async def read(limits: dict[str, int]) -> dict[str, int]:
        steps = await run.store.read_due_steps([COLLECTION.name], ALL_PARTITIONS, limits)
        targets = [target_of(step.method) for step in steps]
        return {target: targets.count(target) for target in targets}

    assert await read({}) == {SILENT: PLACES, "other.v1.CommandService": 2}
    assert await read({SILENT: 0}) == {"other.v1.CommandService": 2}
    assert await read({SILENT: 1}) == {SILENT: 1, "other.v1.CommandService": 2}


async def test_the_longest_due_steps_of_a_target_come_first(run: SagaRun) -> None:
    await run.deliver(*(written(f"c-{number}") for number in range(PLACES * 3)))
    await run.query("UPDATE saga_steps SET due_at = due_at - interval '1 hour' WHERE id IN ('c-40', 'c-90')")
    steps = await run.store.read_due_steps([COLLECTION.name], ALL_PARTITIONS, {})
    assert {step.id for step in steps[:2]} == {"c-40", "c-90"}
    assert len(steps) == PLACES


async def test_steps_in_memory_are_passed_over_but_not_their_other_attempts(run: SagaRun) -> None:
    await run.deliver(written("c-1"), written("c-2"))
    keys = {step.id: key_of(step) for step in await run.read_due_steps()}
    earlier = (*keys["c-2"][:3], 0)
    steps = await run.store.read_due_steps([COLLECTION.name], ALL_PARTITIONS, {}, {keys["c-1"], earlier})
    assert [step.id for step in steps] == ["c-2"]


async def test_timers_fire_while_all_connections_of_steps_are_taken(
    run: SagaRun, ledger: tuple[Ledger, TcpProxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "process_manager.dispatch.preceding_inputs.MAX_WAIT", 1.0
    )  # their steps are not answered
    _, proxy = ledger
    proxy.flowing.clear()
    await run.deliver(*(written(f"c-{number}") for number in range(50)))
    connections = [await run.store.engine.connect() for _ in range(run.store.engine.pool.size())]  # type: ignore[attr-defined]
    try:
        async with dispatching(run, proxy, tmp_path):
            async with run.store.reserved.begin() as connection:
                await connection.exec_driver_sql("UPDATE saga_timers SET due_at = now()")

            async def have_fired() -> bool:
                async with run.store.reserved.connect() as connection:
                    query = "SELECT count(*) FROM sagas WHERE status = 'GIVEN_UP'"
                    return (await connection.exec_driver_sql(query)).scalar() == 50

            await until(have_fired)
            for connection in connections:
                await connection.close()
            proxy.flowing.set()
    finally:
        for connection in connections:
            await connection.close()
