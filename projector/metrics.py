"""The metrics of the projector."""

from runtime.process_reports.report import FAILED_EVENTS, LAG
from runtime.process_reports.window import Window
from runtime.telemetry.instruments import SIZES, Counter, Gauge, Histogram

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
BATCH_SIZE = Histogram(
    "diptych.projector.batch_size", "{event}", "Events that are written together", "projection", bounds=SIZES
)
WRITE_DURATION = Histogram(
    "diptych.projector.write_duration", "s", "Time of a write of views and checkpoints to Redis", "projection"
)
OLDEST_UNAPPLIED = Gauge(
    "diptych.projector.oldest_unapplied",
    "s",
    "Age of the oldest event that this projector has read and not written to the views",
    "projection",
)
STALENESS = Gauge(
    "diptych.projector.staleness",
    "s",
    "Time for which views in this projector's partitions may lack events; missing if it is unknown",
    "projection",
)
PARTITIONS_BUILDING = Gauge(
    "diptych.projector.partitions_building",
    "{partition}",
    "This projector's partitions that have not caught up since the build began",
    "projection",
)
REDIS_MEMORY_USED = Gauge("diptych.redis.memory.used", "%", "Used share of Redis's maxmemory")


def create_window() -> Window:
    """Return the measurements of the process's reports: failed events by type, and the lag by view."""
    return Window(
        {FAILED_EVENTS: (EVENTS_PROCESSED, lambda key: None if key[1] else str(key[0]))},
        {LAG: (READ_MODEL_LAG, lambda key: str(key[0]))},
    )
