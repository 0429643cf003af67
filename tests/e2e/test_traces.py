"""Traces of orders through a whole stack: sampling is decided once, and each step has its cause's trace."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from diptych.ordering.v1 import command_service_pb2 as ordering
from diptych.sagas.v1 import query_service_pb2 as saga_queries

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from tests.support.harness.bearer import bearer
from tests.support.harness.collector import Collector
from tests.support.harness.invariants import verify_stack
from tests.support.harness.log_lines import lines_of
from tests.support.harness.shop import Shop
from tests.support.harness.traced_orders import (
    SERVICES,
    list_roots,
    place_order,
    trace_order,
    trading,
    wait_for_spans,
)
from tests.support.harness.waiting import until


@pytest.fixture(scope="module")
async def collector() -> AsyncIterator[Collector]:
    async with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("traces")
    async with temporary_stack(folder, process_managers=1, environment=collector.environment) as stack:
        yield stack


async def fetch(stack: Stack, query: str, *arguments: object) -> list[Any]:
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        return list(await connection.fetch(query, *arguments))
    finally:
        await connection.close()


async def test_nobody_samples_what_the_caller_does_not(stack: Stack, collector: Collector) -> None:
    before = len(collector.spans)
    async with trading(stack, "alice", "00") as (trade, unsampled):
        order_id = await place_order(trade)
        await trade.wait_for_state(order_id, "CONFIRMED")
    async with trading(stack, "bob", "01") as (trade, sampled):
        await trade.wait_for_state(await place_order(trade), "CONFIRMED")
    await wait_for_spans(collector, sampled, SERVICES)
    traces = {span.trace for span in collector.spans[before:]}
    assert traces == {sampled}, f"{len(traces) - 1} traces that nobody began"
    events = await fetch(
        stack, "SELECT metadata::text FROM events WHERE stream = $1", f"ordering.order.{order_id}"
    )
    assert all(unsampled in row[0] for row in events)
    audit = await fetch(stack, "SELECT traceparent FROM audit WHERE stream LIKE $1", f"%{order_id}%")
    assert {row[0][3:35] for row in audit} == {unsampled}
    assert {row[0][-2:] for row in audit} == {"00"}
    for process, message in (
        ("command_server", "Command processed"),
        ("relay", "Event published"),
        ("projector", "Read model updated"),
        ("process_manager", "Step answered"),
    ):
        lines = lines_of(Path(stack.settings.jwks).parent / f"{process}.log", message)
        own = [line for line in lines if line.get("trace_id") == unsampled]
        assert own, message
        assert not any("span_id" in line for line in own)


@pytest.mark.parametrize("waits", [True, False])
async def test_the_releases_have_the_cause_of_the_cancellation(
    stack: Stack, collector: Collector, waits: bool
) -> None:
    async with trading(stack, "alice", "01", "alices") as (alice, placing):
        order_id = await place_order(alice)
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
        if not row["step"].startswith(("release", "record")):
            assert (row["correlation_id"], row["traceparent"][3:35]) == ("alices", placing)
    sent = await collector.span(
        lambda span: (
            span.trace == cancelling and span.attributes.get("diptych.step", "").startswith("release")
        )
    )
    assert {trace for trace, _ in sent.links} == {placing}
    report = await verify_stack(stack)
    assert report.clean, report.to_text()


async def has_step(stack: Stack, order_id: str, step: str) -> bool:
    return bool(
        await fetch(stack, "SELECT FROM saga_steps WHERE id = $1 AND step LIKE $2", order_id, f"{step}%")
    )


async def test_the_trace_of_an_order_leads_to_its_views_and_to_the_end_of_its_saga(
    stack: Stack, collector: Collector
) -> None:
    spans = await trace_order(stack, collector)
    (place,) = list_roots(spans)
    assert place.name == "diptych.ordering.v1.CommandService/PlaceOrder"
    assert place.attributes["diptych.outcome"] == "accepted"
    assert place.attributes["diptych.stream"].startswith("ordering.order.")
    for service, name, kind in (
        ("command_server", "commit commands", "INTERNAL"),
        ("command_server", "SELECT streams", "CLIENT"),
        ("command_server", "INSERT events", "CLIENT"),
        ("relay", "publish DIPTYCH", "PRODUCER"),
        ("projector", "process DIPTYCH", "CONSUMER"),
        ("projector", "EVALSHA", "CLIENT"),
        ("process_manager", "process DIPTYCH", "CONSUMER"),
        ("process_manager", "UPDATE sagas", "CLIENT"),
    ):
        assert [span for span in spans if (span.service, span.name, span.kind) == (service, name, kind)], name
    calls = [
        span for span in spans if span.service == "process_manager" and "diptych.step" in span.attributes
    ]
    steps = {span.attributes["diptych.step"].partition("-")[0] for span in calls}
    assert steps == {"assess", "reserve", "hold_money", "firm_stock", "firm_money", "confirm", "record"}
    assert {span.attributes["diptych.outcome"] for span in calls} == {"OK"}
    served = {span.parent for span in spans if span.service == "command_server" and span.kind == "SERVER"}
    assert served == {place.parent, *(span.id for span in calls)}


async def test_the_reads_of_a_sampled_query_have_spans(stack: Stack, collector: Collector) -> None:
    shop = Shop(stack)
    for flags in ("00", "01"):
        trace = secrets.token_hex(16)
        shop.bearer = (*bearer(stack, "ordering.read"), ("traceparent", f"00-{trace}-{'1' * 16}-{flags}"))
        await shop.list(customer_id="nobody")
    await shop.close()
    query = await collector.span(lambda span: span.trace == trace and span.kind == "SERVER")
    read = await collector.span(lambda span: span.parent == query.id)
    assert (read.service, read.kind, read.attributes["db.system.name"]) == ("query_server", "CLIENT", "redis")
    assert "nobody" not in str(read)


async def test_the_statements_of_a_sampled_query_about_sagas_have_spans(
    stack: Stack, collector: Collector
) -> None:
    async with trading(stack, "alice", "01") as (trade, trace):
        assert (
            await trade.caller.query(saga_queries.ListSagasRequest(saga="fulfilment.fulfilment"))
        ) is not None
    query = await collector.span(
        lambda span: span.trace == trace and span.name == "diptych.sagas.v1.QueryService/ListSagas"
    )
    statement = await collector.span(lambda span: span.parent == query.id)
    assert (statement.kind, statement.name, statement.attributes) == (
        "CLIENT",
        "SELECT",
        {"db.system.name": "postgresql", "db.operation.name": "SELECT"},
    )
    assert query.start_ns <= statement.start_ns <= statement.end_ns <= query.end_ns
