"""The metrics of refused and of waiting calls."""

from runtime.telemetry.instruments import Counter, Gauge

CALLS_REFUSED = Counter(
    "diptych.calls.refused",
    "{call}",
    "Calls that the edge refused: unauthenticated, denied, invalid, or of an unknown method",
    "reason",
)
CALLS_SHED = Counter(
    "diptych.calls.shed",
    "{call}",
    "Calls refused for overload, by the limit; without those that gRPC core sheds before they arrive",
    "limit",
)
WAITS_OPEN = Gauge("diptych.waits.open", "{call}", "Calls that wait for the version that their token names")
WAITS_ENDED = Counter(
    "diptych.waits.ended",
    "{call}",
    "Waits for a token that ended: `reached`, `timed_out` or `left`",
    "outcome",
)
WATCHES_OPEN = Gauge("diptych.watches.open", "{call}", "Watches that are served now")
