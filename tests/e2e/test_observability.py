"""The three standard log lines, one trace and the metrics follow one order."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from devstack.stack_kinds import temporary_stack
from runtime.process.version import VERSION
from tests.support.harness.collector import Collector
from tests.support.harness.shop import Shop, lines_of, order_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER_SPAN = "b7ad6b7169203331"


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    collector = Collector()
    await collector.start()
    yield collector
    await collector.stop()


@pytest.fixture
async def watched(tmp_path: Path, collector: Collector) -> AsyncIterator[Shop]:
    async with temporary_stack(tmp_path, environment=collector.environment) as stack:
        shop = Shop(stack)
        yield shop
        await shop.close()


async def line(log: Path, message: str, **fields: str) -> dict[str, Any]:
    """Wait for a log line and return it."""
    async with asyncio.timeout(15):
        while True:
            for found in lines_of(log, message):
                if fields.items() <= found.items():
                    return found
            await asyncio.sleep(0.05)


async def test_one_order_is_followed_through_logs_trace_and_metrics(
    watched: Shop, collector: Collector
) -> None:
    request, conversation = order_of("ada"), str(uuid4())
    receipt = await watched.place(
        request,
        ("traceparent", f"00-{TRACE}-{CALLER_SPAN}-01"),
        ("diptych-correlation-id", conversation),
    )
    await watched.get(receipt.aggregate_id, receipt.consistency_token)
    await the_log_lines_have_all_their_fields(watched, request.request_id, conversation, receipt.aggregate_id)
    await the_trace_leads_to_the_write_in_redis(collector)
    await the_metrics_count_it(collector)
    await the_processes_name_their_version(watched, collector)


async def the_log_lines_have_all_their_fields(
    shop: Shop, command_id: str, conversation: str, order_id: str
) -> None:
    folder = Path(shop.stack.settings.jwks).parent
    event_id = f"ordering.order.{order_id}@1"
    command = await line(folder / "command_server.log", "Processing command", commandId=command_id)
    assert command["commandType"] == "diptych.ordering.v1.PlaceOrder"
    assert (command["userId"], command["correlationId"]) == ("alice", conversation)
    published = await line(folder / "relay.log", "Event published", eventId=event_id)
    assert published["eventType"] == "diptych.ordering.v2.OrderPlaced"
    assert (published["aggregateId"], published["correlationId"]) == (order_id, conversation)
    order = {"eventId": event_id, "modelType": "diptych.ordering.v1.Order"}
    updated = await line(folder / "projector.log", "Read model updated", **order)
    assert updated["recordId"] == order_id
    assert 0 <= updated["lag"] < 60_000
    for found in (command, published, updated):
        assert datetime.fromisoformat(found["timestamp"]).tzinfo is not None


async def the_trace_leads_to_the_write_in_redis(collector: Collector) -> None:
    served = await collector.span(lambda span: span.parent == CALLER_SPAN)
    publish = await collector.span(lambda span: span.trace == TRACE and span.service == "relay")
    process = await collector.span(lambda span: span.trace == TRACE and span.service == "projector")
    assert (served.service, served.trace, served.kind) == ("command_server", TRACE, "SERVER")
    assert publish.parent == served.id
    assert process.parent in (served.id, publish.id)
    assert process.end_ns >= process.start_ns > served.start_ns


async def the_metrics_count_it(collector: Collector) -> None:
    command = {"command_type": "diptych.ordering.v1.PlaceOrder"}
    event = {"event_type": "diptych.ordering.v2.OrderPlaced", "success": True}
    view = {"model_type": "diptych.ordering.v1.Order"}
    for name, attributes in (
        ("commands.processed", {**command, "success": True}),
        ("commands.duration", command),
        ("events.processed", event),
        ("read_model.lag", view),
    ):
        await collector.point(
            lambda point, name=name, attributes=attributes: (  # type: ignore[misc]
                point.name == name and attributes.items() <= point.attributes.items()
            )
        )


async def the_processes_name_their_version(shop: Shop, collector: Collector) -> None:
    folder = Path(shop.stack.settings.jwks).parent
    for process in ("command_server", "relay", "projector"):
        assert (await line(folder / f"{process}.log", "Listening"))["version"] == VERSION
        assert (process, VERSION) in collector.versions
