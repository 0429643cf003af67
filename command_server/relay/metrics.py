"""The metrics of the relay."""

from runtime.telemetry.instruments import SIZES, Counter, Gauge, Histogram

OUTBOX_PENDING = Gauge(
    "outbox.pending",
    "{event}",
    "Unpublished events. Every relay and operations server counts all of them: take the `max`, not a sum",
)
LEADS = Gauge("diptych.relay.leads", "1", "1 while this relay leads, as far as it knows; otherwise 0")
PUBLISHED = Counter("diptych.relay.published", "{event}", "Events that the stream has acknowledged")
PUBLICATION_SIZE = Histogram(
    "diptych.relay.publication_size", "{event}", "Events that are published together", bounds=SIZES
)
PUBLICATION_DURATION = Histogram(
    "diptych.relay.publication_duration", "s", "Time until the stream has acknowledged events"
)
