"""Real faults of a real stack reach a webhook as the alerts that are meant for them, and end with the faults.

The times and limits of ages are shorter than in deploy/observability; everything else is as deployed.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from time import monotonic
from uuid import uuid4

import grpc
import pytest
from diptych.ordering.v1 import query_service_pb2 as queries
from redis.asyncio import Redis

from devstack.child import Child, list_children
from devstack.observe.programs import ALERTMANAGER, PROMETHEUS
from devstack.processes import Process
from devstack.servers import Server
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import (
    COMMAND_SERVER,
    OPERATIONS_SERVER,
    PROCESS_MANAGER,
    PROJECTOR,
    QUERY_SERVER,
    RELAY,
    ProcessKind,
)
from runtime.jetstream import read_stream_identity
from tests.support.harness.alerting import Alerting, alerting, hasten
from tests.support.harness.caller import Caller
from tests.support.harness.command_line import diptych
from tests.support.harness.expressions import list_expressions
from tests.support.harness.invariants import verify_stack
from tests.support.harness.jetstream import open_client
from tests.support.harness.observers import query, require
from tests.support.harness.planted_events import plant_unknown_event
from tests.support.harness.process_clocks import ProcessClocks
from tests.support.harness.shop import order_of
from tests.support.harness.trade import SCOPES, Trade
from tests.support.harness.waiting import until

MAX_WAITS = 5
"""Queries that may wait for their token in a query server."""
pytestmark = [pytest.mark.long, pytest.mark.asyncio(loop_scope="session")]


FIRING = 'ALERTS{alertstate="firing"}'
WITH_TLS = ("FilesInvalid", "CertificateExpires")
"""Alerts on metrics of processes with TLS, which this stack has not."""


@pytest.fixture(scope="module")
async def clocks(tmp_path_factory: pytest.TempPathFactory) -> ProcessClocks:
    return ProcessClocks(tmp_path_factory.mktemp("clocks"))


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory, clocks: ProcessClocks) -> AsyncIterator[Stack]:
    require(PROMETHEUS, ALERTMANAGER)
    folder = tmp_path_factory.mktemp("stack")
    variables = {**clocks.environment, "DIPTYCH_MAX_WAITS": str(MAX_WAITS)}
    stack = temporary_stack(
        folder, process_managers=1, operations_servers=1, environment=variables, metrics=True
    )
    stack.add(QUERY_SERVER, ["--workers", "2"])
    async with stack:
        yield stack


@pytest.fixture(scope="module")
async def alerts(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Alerting]:
    async with alerting(stack, tmp_path_factory.mktemp("alerting"), hasten) as alerts:
        yield alerts


@pytest.fixture
async def trade(stack: Stack) -> AsyncIterator[Trade]:
    caller = Caller(stack, *SCOPES)
    yield Trade(caller)
    await caller.close()


async def expect_quiet(alerts: Alerting) -> None:
    """Wait until no alert fires."""
    try:
        await until(lambda: alerts.query(FIRING) == 0, 90)
    finally:
        print([series["metric"] for series in query(alerts.prometheus, FIRING)])


async def expect(alerts: Alerting, *names: str, seconds: float = 40, **labels: str) -> None:
    """Wait for new alerts with these names and labels."""
    start = monotonic()
    arrivals = await asyncio.gather(*(alerts.wait_firing(name, seconds, start, **labels) for name in names))
    print({name: f"{arrival - start:.1f} s" for name, arrival in zip(names, arrivals, strict=True)})


@asynccontextmanager
async def frozen(*children: Child) -> AsyncIterator[None]:
    for child in children:
        child.freeze()
    try:
        yield
    finally:
        for child in children:
            child.thaw()


@asynccontextmanager
async def killed(process: Process | Server) -> AsyncIterator[None]:
    await process.kill()
    try:
        yield
    finally:
        await process.start()


@contextmanager
def overwritten(file: Path, content: str) -> Iterator[None]:
    before = file.read_text()
    file.write_text(content)
    try:
        yield
    finally:
        file.write_text(before)


def only(stack: Stack, kind: ProcessKind) -> Process:
    return stack.of(kind)[0]


async def test_nats_is_away_while_orders_are_placed(stack: Stack, alerts: Alerting, trade: Trade) -> None:
    await trade.open_account(1)
    await until(lambda: alerts.query("read_model_lag_seconds_count") > 0)
    async with killed(stack.servers["nats_url"]):
        await trade.open_account(1)
        token = (await trade.caller.execute(order_of("ada"))).consistency_token
        await asyncio.gather(
            expect(alerts, "OutboxOld", "ReadModelStale", "ProjectionBehind", "QueryResponseTimeHigh"),
            expect(alerts, "StoreUnreachable", store="nats"),
            expect(alerts, "ProcessNotServing", process="relay"),
            expect(alerts, "CallsRefusedForOverload", limit="waiting calls"),
            query_together(trade, token),
        )
    await expect(alerts, "EventProcessingLagHigh")
    await expect_quiet(alerts)


async def query_together(trade: Trade, token: str) -> None:
    """Query with a token that no view includes yet: some queries wait as long as they may, more are shed.

    Prometheus sees an increase of series that it has seen before, so there are several rounds.
    """
    for _ in range(3):
        requests = [
            queries.GetOrderRequest(order_id=uuid4().hex, at_least_as_fresh=token)
            for _ in range(8 * MAX_WAITS)
        ]
        answers = await asyncio.gather(*map(trade.caller.query, requests), return_exceptions=True)
        assert all(isinstance(answer, grpc.aio.AioRpcError) for answer in answers)


async def test_no_relay_leads(stack: Stack, alerts: Alerting) -> None:
    async with killed(only(stack, RELAY)):
        await asyncio.gather(
            expect(alerts, "NoRelayLeads"), expect(alerts, "ProcessAway", "NoProcessOfKind", job="relay")
        )
    await expect_quiet(alerts)


async def test_projector_and_process_manager_are_away(stack: Stack, alerts: Alerting) -> None:
    async with killed(only(stack, PROJECTOR)), killed(only(stack, PROCESS_MANAGER)):
        async with Redis.from_url(stack.settings.redis_url) as redis:
            await redis.flushall()
        await asyncio.gather(
            expect(alerts, "PartitionWithoutHolder", kind="projector"),
            expect(alerts, "PartitionWithoutHolder", kind="process_manager"),
            expect(alerts, "ProjectionNotReady"),
        )
    await expect_quiet(alerts)


async def test_no_operations_server_answers(stack: Stack, alerts: Alerting) -> None:
    async with frozen(only(stack, OPERATIONS_SERVER).child):
        await expect(alerts, "OperationsServerAway")
    await expect_quiet(alerts)


async def test_a_worker_is_frozen(stack: Stack, alerts: Alerting) -> None:
    parent = stack.of(QUERY_SERVER)[1].child.process.pid
    worker = list_children(parent)[0]
    os.kill(worker, SIGSTOP)
    await expect(alerts, "WorkerSilent")
    os.kill(worker, SIGCONT)
    await expect_quiet(alerts)


async def test_redis_is_nearly_full(stack: Stack, alerts: Alerting) -> None:
    async with Redis.from_url(stack.settings.redis_url) as redis:
        used = (await redis.info("memory"))["used_memory"]
        await redis.config_set("maxmemory", int(used * 1.1))
        await expect(alerts, "RedisNearlyFull")
        await redis.config_set("maxmemory", used * 10)
    await expect_quiet(alerts)


async def test_the_key_ring_is_invalid(stack: Stack, alerts: Alerting) -> None:
    with overwritten(Path(stack.settings.keys), "{"):
        await expect(alerts, "KeyRingInvalid")
    await expect_quiet(alerts)


async def test_clocks_are_off(alerts: Alerting, clocks: ProcessClocks) -> None:
    clocks.set(3)
    await expect(alerts, "ClockOff")
    clocks.set(0)
    await expect_quiet(alerts)


async def test_postgresql_is_frozen_while_commands_arrive(
    stack: Stack, alerts: Alerting, trade: Trade
) -> None:
    async with frozen(stack.servers["database_url"].child):
        commands = [asyncio.create_task(trade.caller.execute(order_of("ada"))) for _ in range(5)]
        await expect(alerts, "CommandsFail", "CommandSuccessRateLow")
    failures = await asyncio.gather(*commands, return_exceptions=True)
    assert any(isinstance(failure, grpc.aio.AioRpcError) for failure in failures)
    await expect_quiet(alerts)


async def test_a_context_answers_no_steps(stack: Stack, alerts: Alerting, trade: Trade) -> None:
    manager = only(stack, PROCESS_MANAGER).child
    manager.freeze()
    await trade.caller.execute(order_of("ada"))
    async with frozen(only(stack, COMMAND_SERVER).child):
        manager.thaw()
        await expect(alerts, "StepTargetSilent")
    await expect_quiet(alerts)


async def test_a_machine_has_no_time_for_a_process(stack: Stack, alerts: Alerting) -> None:
    process = only(stack, QUERY_SERVER).child

    async def starve() -> None:
        while True:
            process.freeze()
            await asyncio.sleep(0.6)
            process.thaw()
            await asyncio.sleep(0.2)

    starving = asyncio.create_task(starve())
    try:
        await expect(alerts, "EventLoopSlow", instance=QUERY_SERVER.name)
    finally:
        starving.cancel()
        process.thaw()
    await expect_quiet(alerts)


async def test_the_token_of_the_process_manager_lacks_a_scope(
    stack: Stack, alerts: Alerting, trade: Trade
) -> None:
    token = stack.token("ordering.read", subject="process-manager")
    with overwritten(Path(stack.settings.process_manager_token), token):
        await trade.caller.execute(order_of("ada"))
        await expect(alerts, "SagaStepsDenied")
    await expect_quiet(alerts)


async def test_the_stack_is_consistent(stack: Stack) -> None:
    report = await verify_stack(stack)
    assert report.clean, report.to_text()


# The last tests: they plant events that nothing can read.
async def test_events_cannot_be_read(stack: Stack, alerts: Alerting, trade: Trade) -> None:
    sku, account = await trade.create_product(6), await trade.open_account(1_000)
    for missing in (0, 1):
        order = await trade.place_order(sku, account)
        await trade.wait_for_state(order, "CONFIRMED")
        stream = f"ordering.order.{order}"
        await plant_unknown_event(stack.settings.database_url, stream, missing=missing)
    names = ("AggregatesParked", "EventsFailed", "SagasBlocked", "SagasOverdue", "SagaStreamsParked")
    await expect(alerts, *names, seconds=60)


async def test_somebody_else_publishes_to_the_stream(stack: Stack, alerts: Alerting) -> None:
    client = await open_client(stack.settings.nats_url)
    identity = await read_stream_identity(client.jetstream())
    assert identity is not None
    await client.jetstream().publish(f"diptych.feed.{identity.epoch}.0.ordering.order.o-1", b"foreign")
    await client.close()
    await expect(alerts, "ForeignMessages")


async def test_every_expression_had_series(stack: Stack, alerts: Alerting) -> None:
    await refuse_call(stack)
    built = await diptych(stack, "projections", "rebuild", "inventory.product", "--reason", "to be seen")
    assert built[0] == 0, built
    lacking = [each for each in list_expressions() if each.place not in WITH_TLS]

    def all_had_series() -> bool:
        lacking[:] = [each for each in lacking if not alerts.had_series(hasten(each.text))]
        return not lacking

    try:
        await until(all_had_series, 15)
    except AssertionError:
        pytest.fail(f"no series: {sorted(each.place for each in lacking)}")


async def refuse_call(stack: Stack) -> None:
    """Call without the scope that the call needs."""
    caller = Caller(stack, "inventory.read")
    with pytest.raises(grpc.aio.AioRpcError):
        await caller.query(queries.GetOrderRequest(order_id=uuid4().hex))
    await caller.close()
