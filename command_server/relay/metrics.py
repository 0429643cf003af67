"""The metrics of the relay."""

from runtime.telemetry.instruments import Gauge

OUTBOX_PENDING = Gauge("outbox.pending", "{event}", "Unpublished events in the outbox")
