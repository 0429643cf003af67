"""The metrics of the command server."""

from runtime.process_reports.report import COMMANDS
from runtime.process_reports.window import Window
from runtime.telemetry.instruments import SIZES, Counter, Gauge, Histogram

COMMANDS_PROCESSED = Counter(
    "commands.processed",
    "{command}",
    "Answered commands; `success` is false for those that failed",
    "command_type",
    "success",
    "outcome",
    "reason",
)
COMMAND_DURATION = Histogram(
    "diptych.commands.duration", "s", "Time from a command's arrival to its answer", "command_type"
)
BATCH_SIZE = Histogram(
    "diptych.commands.batch_size", "{command}", "Commands that share a transaction", bounds=SIZES
)
BATCH_WAIT = Histogram(
    "diptych.commands.batch_wait", "s", "Time from the arrival of the oldest command of a batch to its commit"
)
QUEUED = Gauge("diptych.commands.queued", "{command}", "Commands that wait for a transaction")
TIMES_SET_ASIDE = Counter(
    "diptych.streams.times_set_aside",
    "{stream}",
    "Streams whose last event was ahead of the database's clock when the next one was decided",
    "stream_type",
)
FOLDS = Gauge("diptych.streams.folds", "{stream}", "Long streams that are being folded")
FOLD_AGE = Gauge("diptych.streams.fold_age", "s", "Time since the oldest fold of a long stream began")


def create_window() -> Window:
    """Return the measurements of the process's reports: commands by outcome."""
    return Window({COMMANDS: (COMMANDS_PROCESSED, lambda key: str(key[2]))})
