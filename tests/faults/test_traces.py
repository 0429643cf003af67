"""What is repeated after a fault adds no span to the trace of what took effect before."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts import streams
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import COMMAND_SERVER, PROCESS_MANAGER, PROJECTOR, RELAY
from tests.support.harness.collector import Collector, Span
from tests.support.harness.invariants import verify_stack
from tests.support.harness.jetstream import open_client
from tests.support.harness.traced_orders import trace_order


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with Collector() as collector:
        yield collector


@pytest.fixture
async def stack(tmp_path: Path, collector: Collector) -> AsyncIterator[Stack]:
    async with temporary_stack(tmp_path, process_managers=1, environment=collector.environment) as stack:
        yield stack


def count_spans(collector: Collector, trace: str) -> Counter[tuple[str, str]]:
    return Counter((span.service, span.name) for span in collector.spans if span.trace == trace)


async def restart_all(stack: Stack) -> None:
    for kind in (RELAY, PROJECTOR, PROCESS_MANAGER, COMMAND_SERVER):
        (process,) = stack.of(kind)
        await process.kill()
        await process.start()


async def delete_stream(stack: Stack) -> None:
    """Delete the stream: the relay publishes all events again, and every reader gets them again."""
    client = await open_client(stack.settings.nats_url)
    await client.jetstream().delete_stream(streams.JETSTREAM)
    await client.close()


@pytest.mark.long
async def test_what_is_repeated_after_a_fault_has_no_other_span(stack: Stack, collector: Collector) -> None:
    spans: list[Span] = list(await trace_order(stack, collector))
    trace = spans[0].trace
    await trace_order(stack, collector)  # every process has exported what it did for the first one
    before = count_spans(collector, trace)
    for fault in (restart_all, delete_stream):
        await fault(stack)
        report = await verify_stack(stack)
        assert report.clean, report.to_text()
        await trace_order(stack, collector)
        assert count_spans(collector, trace) == before, fault.__name__
