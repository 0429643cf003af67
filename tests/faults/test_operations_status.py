"""The status and the metrics of the system are true and in time, whatever is killed, frozen or cut off."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from time import monotonic

import asyncpg
import pytest
from diptych.operations.v1 import operations_service_pb2 as protocol
from diptych.operations.v1.status_pb2 import Partition, Projection, Status

from contracts.streams import PARTITIONS
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import COMMAND_SERVER, OPERATIONS_SERVER, PROJECTOR, RELAY
from runtime.process_reports.figures import STORES
from tests.support.harness.caller import Caller
from tests.support.harness.collector import Collector, Point
from tests.support.harness.invariants import assert_consistent
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until
from tests.support.ledger.installation import CONTEXT, installed

COUNT_CHEQUES = "SELECT count(*) FROM events WHERE stream LIKE 'ledger.cheque.%'"
NO_LIMITS = {
    "DIPTYCH_MAX_QUERY_RESPONSE_TIME": "1000",
    "DIPTYCH_MAX_EVENT_PROCESSING_LAG": "1000",
    "DIPTYCH_MAX_READ_MODEL_STALENESS": "1000",
}
"""The health figures of an outage stay bad for five minutes after it."""
DEADLINE = 5.0
"""Seconds for an answer that takes 2 at most; the rest is for a busy machine."""


@pytest.fixture(scope="module")
async def collector() -> AsyncIterator[Collector]:
    async with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("status")
    with installed(CONTEXT):
        stack = temporary_stack(
            folder,
            contexts=CONTEXT,
            relays=2,
            process_managers=1,
            environment=collector.environment | NO_LIMITS,
        )
        stack.add(OPERATIONS_SERVER)
        async with stack:
            yield stack


class Operator:
    """Asks the operations server."""

    def __init__(self, stack: Stack) -> None:
        self._caller = Caller(stack, "operations.read")

    async def read_status(self) -> Status:
        start = monotonic()
        response = await self._caller.query(protocol.GetStatusRequest())
        assert monotonic() - start < DEADLINE
        status: Status = response.status
        assert status.healthy == (not status.findings)
        return status

    async def find(self, *parts: str) -> Status:
        """Wait until a finding has all of these parts."""
        status: list[Status] = []

        async def has_finding() -> bool:
            status[:] = [await self.read_status()]
            return any(all(part in finding for part in parts) for finding in status[0].findings)

        await until(has_finding, 30)
        return status[0]

    async def wait_healthy(self) -> Status:
        """Wait until nothing needs attention, but for sagas that the traffic blocks by its voided cheques."""
        status: list[Status] = []

        async def is_healthy() -> bool:
            status[:] = [await self.read_status()]
            return all(finding.startswith("ledger.collection: ") for finding in status[0].findings)

        try:
            await until(is_healthy, 30)
        except AssertionError:
            raise AssertionError(list(status[0].findings)) from None
        return status[0]

    async def read_partitions(self, projection: str) -> Sequence[Partition]:
        request = protocol.ListProjectionsRequest(projection=projection)
        (found,) = (await self._caller.query(request)).projections
        assert [each.number for each in found.partitions] == list(range(PARTITIONS))
        partitions: Sequence[Partition] = found.partitions
        return partitions

    async def close(self) -> None:
        await self._caller.close()


@pytest.fixture
async def operator(stack: Stack, traffic: Traffic) -> AsyncIterator[Operator]:
    operator = Operator(stack)
    await operator.wait_healthy()
    yield operator
    await operator.wait_healthy()
    await operator.close()
    await assert_consistent(stack, traffic.answers)


def find_projection(status: Status, name: str) -> Projection:
    (projection,) = [each for each in status.projections if each.name == name]
    return projection


def is_above(name: str, value: float, *, service: str = "", **attributes: str) -> Callable[[Point], bool]:
    """Return whether a point of a metric, with these attributes, has a larger value."""
    return lambda point: (
        point.name == name
        and service in ("", point.service)
        and attributes.items() <= point.attributes.items()
        and point.count > value
    )


def count_behind(status: Status) -> int:
    return sum(projection.events_behind for projection in status.projections)


async def test_a_dead_projector_hides_no_event(
    stack: Stack, operator: Operator, traffic: Traffic, collector: Collector
) -> None:
    (projector,) = stack.of(PROJECTOR)
    await projector.kill()
    async with traffic.flowing():
        await traffic.more(30)
    try:
        await operator.find("projector at", "does not answer")
        status = await operator.find("no projector holds any partition of ledger")
        status = await operator.find("ledger.cheque is", "events behind, the oldest waits for")
        connection = await asyncpg.connect(stack.settings.database_url)
        recorded = await connection.fetchval(
            "SELECT count(*) FROM events WHERE stream LIKE 'ledger.cheque.%'"
        )
        await connection.close()
        before = find_projection(status, "ledger.cheque")
        assert 30 <= before.events_behind <= recorded
        assert 5 <= before.oldest_unapplied_age.ToTimedelta().total_seconds() < 60
        names = {"diptych.projection.events_behind", "diptych.projection.oldest_unapplied.age"}
        for name in names:
            await collector.point(is_above(name, 0, projection="ledger.cheque"))
        partitions = await operator.read_partitions("ledger.cheque")
        assert sum(each.events_behind for each in partitions) == before.events_behind
        assert {each.holder for each in partitions} == {""}
    finally:
        await projector.start()
    status = await operator.wait_healthy()
    assert count_behind(status) == 0
    assert {each.holder for each in await operator.read_partitions("ledger.cheque")} != {""}


async def test_events_of_a_relay_without_nats_are_counted_by_everyone(
    stack: Stack, operator: Operator, traffic: Traffic, collector: Collector
) -> None:
    """No relay leads meanwhile, and none of them reports fewer."""
    nats = stack.servers["nats_url"]
    await nats.kill()
    try:
        await operator.find("no relay leads")
        async with traffic.flowing():
            await traffic.more(40)
        status = await operator.find("events wait for publication")
        pending = status.outbox.pending_events
        assert pending >= 40 and not status.outbox.leader
        assert status.outbox.oldest_age.ToTimedelta().total_seconds() >= 5
        oldest = [each.oldest_unapplied_age.ToTimedelta().total_seconds() for each in status.projections]
        assert max(oldest) >= 5  # also what is not published is not applied
        for service in ("operations_server", "relay"):
            await collector.point(is_above("outbox.pending", pending - 1, service=service), 30)
    finally:
        await nats.start()
    assert (await operator.wait_healthy()).outbox.leader


@pytest.mark.parametrize(
    ("setting", "name"), [("database_url", "PostgreSQL"), ("nats_url", "NATS"), ("redis_url", "Redis")]
)
async def test_a_frozen_store_costs_its_own_part_and_no_time(
    stack: Stack, operator: Operator, setting: str, name: str
) -> None:
    server = stack.servers[setting]
    server.child.freeze()
    try:
        status = await operator.find(f"{name} cannot be read: no answer for")
        for _ in range(3):  # it does not pile up
            status = await operator.read_status()
        errors = {store.name: store.error for store in status.stores}
        assert [store for store in errors if errors[store]] == [name]
        assert bool(status.outbox.error) == (name == "PostgreSQL")
        unknown = {figure.name for figure in status.figures if figure.error and not figure.good}
        assert unknown == {figure for figure, store in STORES.items() if store == name}
        assert all(projection.error for projection in status.projections) == (name != "NATS")
    finally:
        server.child.thaw()


async def test_everything_frozen_at_once_is_reported_in_time(stack: Stack, operator: Operator) -> None:
    frozen = [*(server.child for server in stack.servers.values()), stack.of(COMMAND_SERVER)[0].child]
    for child in frozen:
        child.freeze()
    try:
        await operator.find("command_server at", "does not answer (DEADLINE_EXCEEDED)")
        durations: list[float] = []
        status = last = await operator.read_status()
        while len(durations) < 3:
            start = monotonic()
            status = await operator.read_status()
            if status.read_time != last.read_time:  # not one that served another call, too
                durations.append(monotonic() - start)
            last = status
        print("seconds of a status with everything frozen:", [round(each, 2) for each in durations])
        assert all(store.error for store in status.stores)
        assert "command_server" in status.findings[0]
        answers = await asyncio.gather(*(operator.read_status() for _ in range(50)))
        # Those that arrive late on a busy machine share the next reading.
        assert len({answer.read_time.ToNanoseconds() for answer in answers}) <= 3
    finally:
        for child in frozen:
            child.thaw()


async def test_a_standby_takes_over_and_the_status_names_it(stack: Stack, operator: Operator) -> None:
    before = (await operator.read_status()).outbox.leader
    leading = next(relay for relay in stack.of(RELAY) if f":{relay.child.process.pid}:" in before)
    await leading.kill()

    async def another_leads() -> bool:
        leader = (await operator.read_status()).outbox.leader
        return leader not in ("", before)

    try:
        await until(another_leads)
    finally:
        await leading.start()


async def test_a_process_that_serves_no_more_is_the_first_finding(stack: Stack, operator: Operator) -> None:
    (server,) = stack.of(COMMAND_SERVER)
    await server.kill()
    try:
        status = await operator.find("command_server at", "does not answer (UNAVAILABLE)")
        assert "command_server" in status.findings[0]
    finally:
        await server.start()
