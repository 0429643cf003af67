"""The metrics of the domain, behind functions that do nothing while metrics are off."""

from runtime.telemetry.instruments import Instruments

instruments: Instruments | None = None
"""The metrics' instruments, None where metrics are off."""


def command_processed(command_type: str, success: bool, seconds: float) -> None:
    """Count a command that was answered, accepted or not, and the time that it took."""
    if instruments is not None:
        instruments.command_processed(command_type, success, seconds)


def event_processed(event_type: str, success: bool) -> None:
    """Count an event that a projection applied, or failed to apply."""
    if instruments is not None:
        instruments.event_processed(event_type, success)


def read_model_lag(model_type: str, seconds: float) -> None:
    """Record the time from an event's recording to its effect in a view."""
    if instruments is not None:
        instruments.read_model_lag(model_type, seconds)


def outbox_pending(events: int) -> None:
    """Record how many events wait for being published."""
    if instruments is not None:
        instruments.outbox_pending(events)
