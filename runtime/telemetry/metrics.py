"""The metrics of all processes. Each process has its own beside these, in its module `metrics`."""

from runtime.telemetry.instruments import Counter, Gauge, Histogram

CALL_DURATION = Histogram(
    "rpc.server.call.duration",
    "s",
    "Time from a gRPC call's arrival to its answer",
    "rpc.system.name",
    "rpc.method",
    "rpc.response.status_code",
    "error.type",
)
KEY_RING_VALID = Gauge("diptych.key_ring.valid", "1", "1 while the key ring's file can be used, otherwise 0")
FILES_VALID = Gauge(
    "diptych.files.valid", "1", "1 while the files of a setting can be used, otherwise 0", "setting"
)
CERTIFICATE_LEFT = Gauge(
    "diptych.certificate.left", "s", "Time until the certificate of this process expires"
)
CLOCK_OFFSET = Gauge(
    "diptych.clock.offset", "ms", "Lead of this machine's clock over that of PostgreSQL or Redis"
)
WORKER_ANSWERING = Gauge(
    "diptych.worker.answering", "1", "1 while a worker sends its metrics to its parent, otherwise 0", "worker"
)
WORKERS_REPLACED = Counter(
    "diptych.worker.replaced", "{worker}", "Workers that died and were replaced", "worker"
)
EVENT_LOOP_DELAY = Histogram(
    "diptych.event_loop.delay", "s", "Time by which a timer of the event loop was late, once a second"
)
EVENT_LOOP_STALLED = Gauge(
    "diptych.event_loop.stalled", "s", "Time for which the event loop has not turned although it should have"
)
CONNECTIONS_LOST = Counter(
    "diptych.connections.lost",
    "{connection}",
    "Connections to a server that were lost in use",
    "server",
)
FOREIGN_MESSAGES = Counter(
    "diptych.feed.foreign_messages",
    "{message}",
    "Messages in the stream that the relay has not published, and that were skipped",
)
PARTITIONS_HELD = Gauge(
    "diptych.partitions.held", "{partition}", "Partitions that this projector or process manager holds"
)
LEASES_LOST = Counter(
    "diptych.leases.lost", "{lease}", "Leases that ended although this process did not release them"
)
