"""The spans of events that sagas receive, and of their steps: one for what took effect, none for the rest."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from process_manager import traces
from process_manager.dispatch.step_client import StepReply
from process_manager.postgres.store import SagaStore
from process_manager.sagas.inventory import RESERVATIONS
from tests.support.builders.reservations import ended, made
from tests.support.harness.recorded_spans import RecordedSpans, id_of, spans
from tests.support.harness.saga_run import SagaRun, cashed, written
from tests.support.ledger.sagas import COLLECTION

__all__ = ["spans"]


@pytest.fixture
def run(store: SagaStore) -> SagaRun:
    return SagaRun(store, COLLECTION)


@pytest.fixture
async def deadlines(store: SagaStore) -> AsyncIterator[SagaRun]:
    run = SagaRun(store, RESERVATIONS)
    yield run
    await run.deadlines.close()


def attributes_of(span: ReadableSpan) -> Mapping[str, Any]:
    return dict(span.attributes or {})


def list_received(spans: RecordedSpans) -> Sequence[str]:
    return [attributes_of(span)["messaging.message.id"] for span in spans.find("process DIPTYCH")]


async def test_each_event_has_a_span_with_the_write_of_its_instance(
    run: SagaRun, spans: RecordedSpans
) -> None:
    await run.deliver(written("c"), written("d"))
    received = spans.find("process DIPTYCH")
    assert {span.kind for span in received} == {SpanKind.CONSUMER}
    assert list_received(spans) == ["ledger.cheque.c@1", "ledger.cheque.d@1"]
    assert attributes_of(received[0]) == {
        "messaging.system": "nats",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "DIPTYCH",
        "messaging.destination.template": "diptych.events.{partition}.{stream}",
        "messaging.consumer.group.name": "ledger.collection",
        "messaging.message.id": "ledger.cheque.c@1",
        "messaging.batch.message_count": 2,
        "diptych.saga": "ledger.collection",
        "diptych.saga.id": "c",
    }
    writes = [span for span in spans.find("UPDATE sagas") if span.parent]
    assert {f"{span.parent.span_id:016x}" for span in writes if span.parent} == set(map(id_of, received))
    for span in (*received, *writes):
        assert span.start_time is not None
        assert span.end_time is not None
        assert datetime.now(UTC) - timedelta(minutes=1) < datetime.fromtimestamp(span.start_time / 1e9, UTC)
        assert span.start_time <= span.end_time


async def test_an_event_that_is_delivered_again_has_no_other_span(run: SagaRun, spans: RecordedSpans) -> None:
    await run.deliver(written("c"))
    await run.deliver(written("c"), cashed("c"), cashed("c"))
    assert list_received(spans) == ["ledger.cheque.c@1", "ledger.cheque.c@2"]
    again = SagaRun(run.store, COLLECTION)  # after a restart, on a stream that was recreated
    again.checkpoints = {feed: ("epoch", number) for feed, (_, number) in run.checkpoints.items()}
    await again.deliver(written("c"), cashed("c"))
    assert list_received(spans) == ["ledger.cheque.c@1", "ledger.cheque.c@2"]


async def test_an_event_that_fails_has_a_span_once_it_is_processed(
    run: SagaRun, spans: RecordedSpans
) -> None:
    await run.deliver(written("c", amount=13))
    assert list_received(spans) == []


async def test_deadlines_have_no_spans_since_their_events_may_come_again(
    deadlines: SagaRun, spans: RecordedSpans
) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    events = made("a", later), ended("a", 2)
    for _ in range(2):
        for event in events:
            await deadlines.deliver(event)
    await deadlines.deliver(ended("a", 2))
    assert list_received(spans) == []


async def test_the_span_of_a_step_names_it_and_its_outcome(run: SagaRun, spans: RecordedSpans) -> None:
    await run.deliver(written("c"))
    (step,) = await run.read_due_steps()
    with traces.start_call(step) as span:
        traces.describe_reply(span, StepReply(reason="CHEQUE_VOID"))
    (call,) = spans.find("acme.ledger.v1.CommandService/CashCheque")
    assert (call.kind, call.links) == (SpanKind.CLIENT, ())
    assert attributes_of(call) == {
        "rpc.system.name": "grpc",
        "rpc.method": "acme.ledger.v1.CommandService/CashCheque",
        "diptych.saga": "ledger.collection",
        "diptych.saga.id": "c",
        "diptych.step": "cash",
        "diptych.step.attempt": 1,
        "diptych.step.try": 1,
        "diptych.step.target": "acme.ledger.v1.CommandService",
        "diptych.outcome": "CHEQUE_VOID",
    }


async def test_unsampled_events_and_steps_have_no_span(run: SagaRun, spans: RecordedSpans) -> None:
    event = written(str(uuid4()))
    event.metadata["traceparent"] = event.metadata["traceparent"][:-1] + "0"  # type: ignore[index]
    await run.deliver(event)
    (step,) = await run.read_due_steps()
    with traces.start_call(step):
        pass
    assert spans.names == []
