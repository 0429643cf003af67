"""Traces of orders through a whole stack: sampling is decided once, and each step has its cause's trace."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from diptych.ordering.v1 import command_service_pb2 as ordering

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from tests.support.harness.caller import Caller
from tests.support.harness.collector import Collector, Span
from tests.support.harness.invariants import verify_stack
from tests.support.harness.trade import SCOPES, Trade
from tests.support.harness.waiting import until


@pytest.fixture(scope="module")
async def collector() -> AsyncIterator[Collector]:
    collector = Collector()
    await collector.start()
    yield collector
    await collector.stop()


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("traces")
    async with temporary_stack(folder, process_managers=1, environment=collector.environment) as stack:
        yield stack


@asynccontextmanager
async def trading(
    stack: Stack, subject: str, flags: str, correlation: str = ""
) -> AsyncIterator[tuple[Trade, str]]:
    """Trade as this caller; yield its trade and the id of its trace."""
    trace = secrets.token_hex(16)
    metadata = [("traceparent", f"00-{trace}-{secrets.token_hex(8)}-{flags}")]
    if correlation:
        metadata.append(("diptych-correlation-id", correlation))
    caller = Caller(stack, *SCOPES, subject=subject, metadata=metadata)
    yield Trade(caller), trace
    await caller.close()


async def fetch(stack: Stack, query: str, *arguments: object) -> list[Any]:
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        return list(await connection.fetch(query, *arguments))
    finally:
        await connection.close()


async def place(trade: Trade) -> str:
    return await trade.place_order(await trade.create_product(10), await trade.open_account(100))


async def wait_for_spans(collector: Collector, trace: str, services: set[str]) -> None:
    """Wait until these services have exported spans of a trace."""
    await until(lambda: services <= {span.service for span in collector.spans if span.trace == trace})


def list_spans(collector: Collector, trace: str) -> list[Span]:
    return [span for span in collector.spans if span.trace == trace]


async def test_nobody_samples_what_the_caller_does_not(stack: Stack, collector: Collector) -> None:
    before = len(collector.spans)
    async with trading(stack, "alice", "00") as (trade, unsampled):
        order_id = await place(trade)
        await trade.wait_for_state(order_id, "CONFIRMED")
    async with trading(stack, "bob", "01") as (trade, sampled):
        await trade.wait_for_state(await place(trade), "CONFIRMED")
    await wait_for_spans(collector, sampled, {"command_server", "relay", "projector", "process_manager"})
    traces = {span.trace for span in collector.spans[before:]}
    assert traces == {sampled}, f"{len(traces) - 1} traces that nobody began"
    events = await fetch(
        stack, "SELECT metadata::text FROM events WHERE stream = $1", f"ordering.order.{order_id}"
    )
    assert all(unsampled in row[0] for row in events)
    audit = await fetch(stack, "SELECT traceparent FROM audit WHERE stream LIKE $1", f"%{order_id}%")
    assert {row[0][3:35] for row in audit} == {unsampled}
    assert {row[0][-2:] for row in audit} == {"00"}


@pytest.mark.parametrize("waits", [True, False])
async def test_the_releases_have_the_cause_of_the_cancellation(
    stack: Stack, collector: Collector, waits: bool
) -> None:
    async with trading(stack, "alice", "01", "alices") as (alice, placing):
        order_id = await place(alice)
        if waits:
            await alice.wait_for_state(order_id, "CONFIRMED")
        else:
            await until(lambda: has_step(stack, order_id, "hold_money"))
        async with trading(stack, "bob", "01", "bobs") as (bob, cancelling):
            request = ordering.CancelOrderRequest(order_id=order_id, reason="changed my mind")
            version = (await bob.caller.execute(request)).version
        await alice.wait_for_state(order_id, "CANCELLED")
    rows = await fetch(
        stack,
        "SELECT s.step, a.* FROM saga_steps s JOIN audit a USING (request_id) WHERE s.id = $1",
        order_id,
    )
    releases = [row for row in rows if row["step"].startswith("release")]
    assert {row["step"].partition("-")[0].partition("_")[0] for row in releases} == {"release"}
    for row in releases:
        assert row["correlation_id"] == "bobs"
        assert row["causation_id"] == f"ordering.order.{order_id}@{version}"
        assert row["traceparent"][3:35] == cancelling
    for row in rows:
        if not row["step"].startswith("release"):
            assert (row["correlation_id"], row["traceparent"][3:35]) == ("alices", placing)
    sent = await collector.span(lambda span: span.trace == cancelling and span.service == "process_manager")
    assert {trace for trace, _ in sent.links} == {placing}
    report = await verify_stack(stack)
    assert report.clean, report.to_text()


async def has_step(stack: Stack, order_id: str, step: str) -> bool:
    return bool(
        await fetch(stack, "SELECT FROM saga_steps WHERE id = $1 AND step LIKE $2", order_id, f"{step}%")
    )
