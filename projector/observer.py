"""The projector's telemetry: a log line and metrics for each view written, and spans of traced events.

A build and a replay apply old events: they change no lag, and add no span to traces that ended long ago.
Events that a projector applies after an absence do both, since the views were late.
"""

from collections.abc import Callable, Sequence
from time import time_ns

from contracts import streams
from contracts.envelope import RecordedEvent
from contracts.view_layout import View
from projector import metrics, traces
from projector.records import Parked, Update
from projector.runner import Progress
from runtime.process import logs
from runtime.telemetry import trace_context
from runtime.telemetry.instruments import Key

log = logs.get_logger(__name__)


def observe_progress(read: Callable[[], Sequence[Progress]]) -> None:
    """Compute the gauges of all projections from their progress, whenever they are read."""

    def choose(field: str) -> Callable[[], dict[Key, float]]:
        return lambda: {
            (each.projection,): value for each in read() if (value := getattr(each, field)) is not None
        }

    metrics.OLDEST_UNAPPLIED.observe(choose("oldest_unapplied"))
    metrics.STALENESS.observe(choose("staleness"))
    metrics.PARTITIONS_BUILDING.observe(choose("partitions_building"))


def create_observer(
    view: View, serves: Callable[[], bool] = lambda: True
) -> Callable[[Sequence[Update]], None]:
    """Return the writer's `observe` for a view. Only the generation that serves is measured."""
    model, projection = view.message.DESCRIPTOR.full_name, view.projection

    def observe(updates: Sequence[Update]) -> None:
        if serves():
            _observe(model, projection, updates)
        else:
            for update in updates:
                _report_state(model, projection, update)

    return observe


def _observe(model: str, projection: str, updates: Sequence[Update]) -> None:
    end, count = time_ns(), sum(len(update.applied_events) for update in updates)
    for update in updates:
        for event in update.applied_events:
            metrics.EVENTS_PROCESSED.count(event.type, True)
            if not update.is_backfill:
                traces.record_event(model, projection, event, update.started_ns, end, count)
        if update.applied_events:
            _report_update(model, update, end)
        _report_state(model, projection, update)


def _report_state(model: str, projection: str, update: Update) -> None:
    if update.after.parked is not None:
        _report_parked(model, projection, update, update.after.parked)
    elif update.before.parked is not None:
        log.info("Aggregate unparked", modelType=model, recordId=update.after.id)


def _report_update(model: str, update: Update, end_ns: int) -> None:
    """Log and measure an update. The lag lasts from the recording of its last event until the write.

    A build or a replay is logged only: readers see these by `VIEW_REBUILDING` and the staleness.
    """
    last = update.applied_events[-1]
    lag = max(0.0, end_ns / 1e9 - last.recorded_at.timestamp())
    if not update.is_backfill:
        metrics.READ_MODEL_LAG.record_traced(last.metadata.get("traceparent"), lag, model)
    log.info(
        "Read model updated",
        modelType=model,
        recordId=update.after.id,
        eventId=last.id,
        correlationId=last.metadata.get("correlation_id"),
        lag=round(lag * 1000, 3),
        **trace_context.build_log_fields(last.metadata.get("traceparent")),
    )


def _report_parked(model: str, projection: str, update: Update, parked: Parked) -> None:
    if parked.attempts == 0:
        if update.before.archived:
            log.info("Archived view is restored", modelType=model, recordId=update.after.id)
        elif update.before.parked is None:
            log.warning(
                "Events missing; reading the aggregate's stream",
                modelType=model,
                recordId=update.after.id,
                version=parked.version,
                error=parked.error,
            )
        return
    if update.failed_event is not None:
        metrics.EVENTS_PROCESSED.count(update.failed_event.type, False)
        _report_failure(model, projection, update.failed_event, parked)
    log.error(
        "Aggregate parked",
        modelType=model,
        recordId=update.after.id,
        version=parked.version,
        error=parked.error,
        attempts=parked.attempts,
        state=parked.state,
    )


def _report_failure(model: str, projection: str, event: RecordedEvent, parked: Parked) -> None:
    log.error(
        "Read model update failed",
        modelType=model,
        projection=projection,
        recordId=streams.aggregate_id(event.stream),
        eventId=event.id,
        eventType=event.type,
        stream=event.stream,
        version=event.version,
        correlationId=event.metadata.get("correlation_id"),
        error=parked.error,
        attempts=parked.attempts,
        **trace_context.build_log_fields(event.metadata.get("traceparent")),
    )
