"""Functions that record the domain's metrics, and do nothing while metrics are off."""

from runtime.telemetry.instruments import Instruments

instruments: Instruments | None = None
"""The instruments; None while metrics are off."""


def command_processed(command_type: str, success: bool, seconds: float) -> None:
    """Count an answered command, accepted or rejected, and record its duration."""
    if instruments is not None:
        instruments.command_processed(command_type, success, seconds)


def clock_offset(seconds: float) -> None:
    """Record how far this machine's clock is ahead of that of the server that the process depends on."""
    if instruments is not None:
        instruments.clock_offset(seconds)


def stream_time_set_aside(stream_type: str) -> None:
    """Count a stream whose last event was ahead of the database's clock when the next one was decided."""
    if instruments is not None:
        instruments.stream_time_set_aside(stream_type)


def folds_under_way(count: int, age: float) -> None:
    """Record the number of long streams being folded, and the seconds since the oldest fold began."""
    if instruments is not None:
        instruments.folds_under_way(count, age)


def event_processed(event_type: str, success: bool) -> None:
    """Count an event that a projection has applied (`success`) or failed to apply."""
    if instruments is not None:
        instruments.event_processed(event_type, success)


def read_model_lag(model_type: str, seconds: float) -> None:
    """Record the time from an event's commit until a view includes it."""
    if instruments is not None:
        instruments.read_model_lag(model_type, seconds)


def outbox_pending(events: int) -> None:
    """Record the number of unpublished events in the outbox."""
    if instruments is not None:
        instruments.outbox_pending(events)


def redis_memory_used(percent: int) -> None:
    """Record the used percentage of Redis's maxmemory."""
    if instruments is not None:
        instruments.redis_memory_used(percent)


def key_ring_valid(valid: bool) -> None:
    """Record whether the key ring's file can be used; an invalid one leaves the previous keys in use."""
    if instruments is not None:
        instruments.key_ring_valid(valid)


def step_target_silent(target: str, silent: bool) -> None:
    """Record whether the service to which sagas send steps has stopped answering."""
    if instruments is not None:
        instruments.step_target_silent(target, silent)
