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
            "Serving",
            "short",
            {"{{process}} {{address}}": "min by (process, address) (diptych_process_serving_ratio)"},
        ),
        Panel("Findings of `diptych status`", "short", {"findings": "max(diptych_system_findings)"}),
        Panel(
            "Delay of the event loop, p99",
            "s",
            {"{{instance}}": percentile(0.99, "diptych_event_loop_delay_seconds", "", "instance")},
        ),
        Panel("Standstill of the event loop", "s", {"{{instance}}": "diptych_event_loop_stalled_seconds"}),
        Panel("Readable stores", "short", {"{{store}}": "max by (store) (diptych_store_readable_ratio)"}),
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
        Panel("Age of the oldest unpublished event", "s", {"age": "max(diptych_outbox_oldest_age_seconds)"}),
        Panel("Leading relay", "short", {"{{holder}}": "max by (holder) (diptych_relay_leader_ratio)"}),
        Panel("Published events", "eps", {"{{instance}}": rate("diptych_relay_published_total", "instance")}),
        Panel("Events published together", "short", percentiles("diptych_relay_publication_size")),
        Panel("Time of a publication", "s", percentiles("diptych_relay_publication_duration_seconds")),
    ],
    "Projections": [
        Panel(
            "Age of the oldest unapplied event",
            "s",
            {"{{projection}}": "max by (projection) (diptych_projection_oldest_unapplied_age_seconds)"},
            "A health figure: at most 5 s. Computed from the stores, also for a dead projector.",
        ),
        Panel(
            "Events behind",
            "short",
            {
                "{{projection}}": "sum by (projection)"
                " (max by (projection, partition) (diptych_projection_events_behind))"
            },
        ),
        Panel(
            "Lag of applied events",
            "s",
            percentiles("read_model_lag_seconds"),
            "A health figure: p99 at most 1 s. A projector that is dead records none.",
        ),
        Panel("Applied events", "eps", {"success {{success}}": rate("events_processed_total", "success")}),
        Panel(
            "Parked aggregates",
            "short",
            {"{{projection}}": "max by (projection) (diptych_projection_parked)"},
        ),
        Panel(
            "Progress of builds",
            "percentunit",
            {
                "{{projection}}": "max by (projection) (diptych_projection_build_progress_ratio)",
                "{{projection}} {{generation}}": "max by (projection, generation)"
                " (diptych_projection_generation_build_progress_ratio)",
            },
        ),
        Panel(
            "Partitions without a projector",
            "short",
            {"{{context}}": _WITHOUT_HOLDER.format(holder="diptych_projector") + " or vector(0)"},
        ),
        Panel("Events written together", "short", percentiles("diptych_projector_batch_size")),
        Panel("Time of a write to Redis", "s", percentiles("diptych_projector_write_duration_seconds")),
    ],
    "Sagas": [
        Panel(
            "Sagas that have not ended",
            "short",
            {"{{saga}} {{state}}": "max by (saga, state) (diptych_sagas_instances)"},
        ),
        Panel("Parked streams", "short", {"streams": "max(diptych_sagas_parked_streams)"}),
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
        Panel(
            "Partitions without a process manager",
            "short",
            {"{{context}}": _WITHOUT_HOLDER.format(holder="diptych_process_manager") + " or vector(0)"},
        ),
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
