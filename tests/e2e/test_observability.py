"""The three standard log lines, one trace and the metrics follow one command."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from devstack.stack_kinds import temporary_stack
from operations.projections import rebuild
from runtime.process.version import VERSION
from tests.support.harness.collector import Collector
from tests.support.harness.log_lines import lines_of
from tests.support.harness.waiting import until
from tests.support.ledger.clerk import Clerk, cheque_of
from tests.support.ledger.installation import CONTEXT, installed
from tests.support.ledger.projections import CHEQUE

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER_SPAN = "b7ad6b7169203331"


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with Collector() as collector:
        yield collector


@pytest.fixture
async def watched(tmp_path: Path, collector: Collector) -> AsyncIterator[Clerk]:
    with installed():
        async with temporary_stack(tmp_path, contexts=CONTEXT, environment=collector.environment) as stack:
            clerk = Clerk(stack)
            yield clerk
            await clerk.close()


async def line(log: Path, message: str, **fields: str) -> dict[str, Any]:
    """Wait for a log line and return it."""
    async with asyncio.timeout(15):
        while True:
            for found in lines_of(log, message):
                if fields.items() <= found.items():
                    return found
            await asyncio.sleep(0.05)


async def test_one_command_is_followed_through_logs_trace_and_metrics(
    watched: Clerk, collector: Collector
) -> None:
    request, conversation = cheque_of("ada"), str(uuid4())
    receipt = await watched.write(
        request,
        ("traceparent", f"00-{TRACE}-{CALLER_SPAN}-01"),
        ("diptych-correlation-id", conversation),
    )
    await watched.get(receipt.aggregate_id, receipt.consistency_token)
    await the_log_lines_have_all_their_fields(watched, request.request_id, conversation, receipt.aggregate_id)
    await the_trace_leads_to_the_write_in_redis(collector)
    await the_metrics_count_it(collector)
    await the_processes_name_their_version(watched, collector)
    await a_rebuild_changes_no_lag_and_adds_no_span(watched, collector)


async def the_log_lines_have_all_their_fields(
    clerk: Clerk, command_id: str, conversation: str, cheque_id: str
) -> None:
    folder = Path(clerk.stack.settings.jwks).parent
    event_id = f"ledger.cheque.{cheque_id}@1"
    command = await line(folder / "command_server.log", "Processing command", commandId=command_id)
    assert command["commandType"] == "acme.ledger.v1.WriteCheque"
    assert (command["userId"], command["correlationId"]) == ("alice", conversation)
    ended = await line(folder / "command_server.log", "Command processed", commandId=command_id)
    assert (ended["outcome"], ended["stream"], ended["version"]) == (
        "accepted",
        f"ledger.cheque.{cheque_id}",
        1,
    )
    published = await line(folder / "relay.log", "Event published", eventId=event_id)
    assert published["eventType"] == "acme.ledger.v2.ChequeWritten"
    assert (published["aggregateId"], published["correlationId"]) == (cheque_id, conversation)
    view = {"eventId": event_id, "modelType": "acme.ledger.v1.Cheque"}
    updated = await line(folder / "projector.log", "Read model updated", **view)
    assert updated["recordId"] == cheque_id
    assert 0 <= updated["lag"] < 60_000
    services = ("command_server", "command_server", "relay", "projector")
    for found, service in zip((command, ended, published, updated), services, strict=True):
        assert (found["service"], found["trace_id"], len(found["span_id"])) == (service, TRACE, 16)
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
    command = {"command_type": "acme.ledger.v1.WriteCheque"}
    event = {"event_type": "acme.ledger.v2.ChequeWritten", "success": True}
    view = {"model_type": "acme.ledger.v1.Cheque"}
    for name, attributes in (
        ("commands.processed", {**command, "success": True, "outcome": "accepted"}),
        ("diptych.commands.duration", command),
        ("events.processed", event),
        ("read_model.lag", view),
    ):
        await collector.point(
            lambda point, name=name, attributes=attributes: (  # type: ignore[misc]
                point.name == name and attributes.items() <= point.attributes.items()
            )
        )


async def a_rebuild_changes_no_lag_and_adds_no_span(clerk: Clerk, collector: Collector) -> None:
    def count(name: str) -> float:
        points = {
            tuple(sorted(point.attributes.items())): point.count
            for point in collector.points
            if point.name == name and point.service == "projector"
        }
        return sum(points.values())

    def list_spans() -> set[str]:
        return {span.id for span in collector.spans if span.trace == TRACE and span.service == "projector"}

    lags, applied, spans = count("read_model.lag"), count("events.processed"), list_spans()
    await rebuild(clerk.stack.settings, CHEQUE, 30)
    await until(lambda: count("events.processed") > applied)
    event_views = 2  # that a cheque's first event changes: the cheque and its history
    again = await clerk.write(cheque_of("bob"))  # its lag arrives after everything of the build
    await clerk.get(again.aggregate_id, again.consistency_token)
    await until(lambda: count("read_model.lag") >= lags + event_views)
    assert (count("read_model.lag") - lags, list_spans()) == (event_views, spans)


async def the_processes_name_their_version(clerk: Clerk, collector: Collector) -> None:
    folder = Path(clerk.stack.settings.jwks).parent
    for process in ("command_server", "relay", "projector"):
        assert (await line(folder / f"{process}.log", "Listening"))["version"] == VERSION
        assert (process, VERSION) in collector.versions
