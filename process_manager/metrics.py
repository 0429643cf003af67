"""The metrics of the process manager."""

from runtime.telemetry.instruments import Gauge

TARGET_SILENT = Gauge(
    "diptych.sagas.step_target.silent",
    "1",
    "Whether a service has stopped answering the steps of sagas: 1 or 0",
    "target",
)
