"""The metrics of the projector."""

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
