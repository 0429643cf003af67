"""The metrics of the verifier."""

from runtime.telemetry.instruments import Counter, Gauge

DRIFT = Gauge(
    "diptych.verify.drift",
    "{finding}",
    "Differences between the events and what is derived from them, in the last whole round of the verifier",
    "check",
)
STREAMS = Counter(
    "diptych.verify.streams", "{stream}", "Streams whose derived data the verifier has compared"
)
ROUND_AGE = Gauge("diptych.verify.round_age", "s", "Time since the end of the verifier's last whole round")
