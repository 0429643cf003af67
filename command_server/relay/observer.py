"""Telemetry of the relay: a log line for each published event, and a span if its command was traced."""

from collections.abc import Sequence
from time import time_ns

from opentelemetry.trace import SpanKind

from command_server.relay import metrics
from command_server.relay.batch_sender import Publisher
from contracts import streams
from contracts.envelope import RecordedEvent
from runtime.process import logs
from runtime.telemetry import trace_context, tracing

log = logs.get_logger(__name__)

_ATTRIBUTES: dict[str, str | int] = {
    "messaging.system": "nats",
    "messaging.operation.name": "publish",
    "messaging.operation.type": "send",
    "messaging.destination.name": streams.JETSTREAM,
    "messaging.destination.template": "diptych.events.{partition}.{stream}",
}


class ObservedPublisher:
    """A publisher that reports every event after its acknowledgement."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def publish(self, epoch: str, events: Sequence[RecordedEvent], after: int) -> int:
        start = time_ns()
        last = await self._publisher.publish(epoch, events, after)
        end = time_ns()
        metrics.PUBLISHED.add(len(events))
        metrics.PUBLICATION_SIZE.record(len(events))
        metrics.PUBLICATION_DURATION.record((end - start) / 1e9)
        for event in events:
            _report(event, start, end, len(events))
        return last


def _report(event: RecordedEvent, start: int, end: int, count: int) -> None:
    parent = event.metadata.get("traceparent")
    log.info(
        "Event published",
        eventId=event.id,
        eventType=event.type,
        aggregateId=streams.aggregate_id(event.stream),
        correlationId=event.metadata.get("correlation_id"),
        timestamp=event.recorded_at.isoformat(),
        **trace_context.build_log_fields(parent),
    )
    if parent is not None:
        attributes = {**_ATTRIBUTES, "messaging.message.id": event.id}
        if count > 1:
            attributes["messaging.batch.message_count"] = count
        tracing.record_span(
            f"publish {streams.JETSTREAM}",
            parent=parent,
            start_ns=start,
            end_ns=end,
            kind=SpanKind.PRODUCER,
            attributes=attributes,
        )
