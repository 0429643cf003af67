"""The machinery: the processes, the feed, the projections and the sagas."""

from deploy.observability.dashboards.expressions import percentile, percentiles, rate
from deploy.observability.dashboards.panel import Panel, Rows

_WITHOUT_HOLDER = "count by (context) (max by (context, partition) ({holder}_partition_holder_ratio) == 0)"

ROWS: Rows = {
    "Processes": [
        Panel(
            "Answering", "short", {"{{instance}}": "up"}, "0: the process is away, or its metrics address is."
        ),
        Panel(
            "Delay of the event loop, p99",
            "s",
            {"{{instance}}": percentile(0.99, "diptych_event_loop_delay_seconds", "", "instance")},
        ),
        Panel("Standstill of the event loop", "s", {"{{instance}}": "diptych_event_loop_stalled_seconds"}),
        Panel(
            "Lost connections",
            "ops",
            {"{{job}} {{server}}": rate("diptych_connections_lost_total", "job", "server")},
        ),
        Panel("Clock offset", "ms", {"{{instance}}": "abs(diptych_clock_offset_milliseconds)"}),
        Panel("Used memory of Redis", "percent", {"used": "max(diptych_redis_memory_used_percent)"}),
    ],
    "Feed": [
        Panel("Unpublished events", "short", {"events": "max(outbox_pending)"}),
        Panel("Published events", "eps", {"{{instance}}": rate("diptych_relay_published_total", "instance")}),
        Panel("Events published together", "short", percentiles("diptych_relay_publication_size")),
        Panel("Time of a publication", "s", percentiles("diptych_relay_publication_duration_seconds")),
    ],
    "Projections": [
        Panel(
            "Lag of applied events",
            "s",
            percentiles("read_model_lag_seconds"),
            "A health figure: p99 at most 1 s. A projector that is dead records none.",
        ),
        Panel("Applied events", "eps", {"success {{success}}": rate("events_processed_total", "success")}),
        Panel("Events written together", "short", percentiles("diptych_projector_batch_size")),
        Panel("Time of a write to Redis", "s", percentiles("diptych_projector_write_duration_seconds")),
    ],
    "Sagas": [
        Panel(
            "Calls of steps",
            "ops",
            {"{{target}} {{outcome}}": rate("diptych_sagas_step_attempts_total", "target", "outcome")},
        ),
        Panel(
            "Silent targets",
            "short",
            {"{{target}}": "max by (target) (diptych_sagas_step_target_silent_ratio)"},
        ),
        Panel("Time for which inputs wait", "s", percentiles("diptych_sagas_group_wait_seconds")),
    ],
    "Command servers": [
        Panel("Commands in a transaction", "short", percentiles("diptych_commands_batch_size")),
        Panel("Time until a batch is committed", "s", percentiles("diptych_commands_batch_wait_seconds")),
        Panel(
            "Age of the oldest fold of a long stream",
            "s",
            {"{{instance}}": "diptych_streams_fold_age_seconds"},
        ),
    ],
}
