"""The metrics of the projector."""

from runtime.process_reports.report import FAILED_EVENTS, LAG
from runtime.process_reports.window import Window
from runtime.telemetry.instruments import Counter, Gauge, Histogram

EVENTS_PROCESSED = Counter(
    "events.processed",
    "{event}",
    "Events that projections have applied, or failed to apply (`success` false)",
    "event_type",
    "success",
)
READ_MODEL_LAG = Histogram(
    "read_model.lag", "s", "Time from an event's commit until a view includes it", "model_type"
)
REDIS_MEMORY_USED = Gauge("diptych.redis.memory.used", "%", "Used share of Redis's maxmemory")


def create_window() -> Window:
    """Return the measurements of the process's reports: failed events by type, and the lag by view."""
    return Window(
        {FAILED_EVENTS: (EVENTS_PROCESSED, lambda key: None if key[1] else str(key[0]))},
        {LAG: (READ_MODEL_LAG, lambda key: str(key[0]))},
    )
