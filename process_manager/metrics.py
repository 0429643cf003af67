"""The metrics of the process manager."""

from runtime.telemetry.instruments import SIZES, Counter, Gauge, Histogram

TARGET_SILENT = Gauge(
    "diptych.sagas.step_target.silent",
    "1",
    "Whether a service has stopped answering the steps of sagas: 1 or 0",
    "target",
)
STEP_ATTEMPTS = Counter(
    "diptych.sagas.step_attempts",
    "{attempt}",
    "Calls of steps: `accepted`, `rejected`, `denied`, or `unknown` if there was no final answer",
    "target",
    "outcome",
)
GROUP_SIZE = Histogram(
    "diptych.sagas.group_size", "{input}", "Inputs of sagas that share a transaction", bounds=SIZES
)
GROUP_WAIT = Histogram(
    "diptych.sagas.group_wait",
    "s",
    "Time for which the oldest input of a group waited for its transaction",
)
