"""Words that identifiers must not use, with the field's term for each; docs/concepts.md defines the terms."""

WORDS = {
    "announces": "notify, or change feed",
    "announced": "notify, or change feed",
    "clockwork": "StepDispatcher",
    "contest": "comparison",
    "contestant": "subject",
    "contestants": "subjects",
    "filling": "build",
    "fillings": "builds",
    "gathering": "batching",
    "heard": "received, or consumed",
    "hearing": "consumer",
    "hears": "source_streams, or subscribes_to",
    "nowhere": "NO_CHECKPOINT",
    "presence": "ready, or caught-up marker",
    "refill": "rebuild",
    "refusal": "rejection, or error",
    "rival": "baseline",
    "standing": "status",
    "stood": "previous status",
    "stuck": "blocked, or failed_input",
    "tallied": "event contributions",
    "tallies": "event counters",
    "tally": "event counter",
    "told": "history entry, or input",
    "unsaid": "defaulted",
    "wiping": "clearing",
}
"""By single words within an identifier."""

NAMES = {
    "Abort": "AbortRequested",
    "Answered": "StepSucceeded",
    "Attempt": "RefusedCall",
    "Gathering": "AdaptiveBatcher",
    "Impossible": "ActionNotPossible",
    "Refused": "Rejection, or StepRejected",
    "TURNS": "IDLE_TICKS",
    "asks_who": "needs_caller",
    "further": "related_streams",
    "no_further": "no_related_streams",
    "waits_for": "waiting_for",
}
"""By whole identifiers, for words that are fine elsewhere."""
