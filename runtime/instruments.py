"""The metrics of this system: every name, unit and attribute in one place."""

from opentelemetry.metrics import Histogram, Meter

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bucket boundaries. Finer at the bottom than the semantic conventions' advice, which begins at 5 ms: most
calls here take less."""


class Instruments:
    """One method per thing that is measured. Durations are in seconds."""

    def __init__(self, meter: Meter) -> None:
        def seconds(name: str, description: str) -> Histogram:
            return meter.create_histogram(
                name, "s", description, explicit_bucket_boundaries_advisory=_SECONDS
            )

        self._commands = meter.create_counter(
            "commands.processed", "{command}", "Commands that were answered"
        )
        self._durations = seconds("commands.duration", "From a command's arrival to its answer")
        self._events = meter.create_counter(
            "events.processed", "{event}", "Events that projections have heard"
        )
        self._lag = seconds("read_model.lag", "From an event's recording to its effect in a view")
        self._pending = meter.create_gauge(
            "outbox.pending", "{event}", "Events that wait for being published"
        )
        self._calls = seconds("rpc.server.call.duration", "From a gRPC call's arrival to its answer")

    def command_processed(self, command_type: str, success: bool, seconds: float) -> None:
        """Count a command and the time that it took."""
        self._commands.add(1, {"command_type": command_type, "success": success})
        self._durations.record(seconds, {"command_type": command_type})

    def event_processed(self, event_type: str, success: bool) -> None:
        """Count an event."""
        self._events.add(1, {"event_type": event_type, "success": success})

    def read_model_lag(self, model_type: str, seconds: float) -> None:
        """Record how long an event took to a view."""
        self._lag.record(seconds, {"model_type": model_type})

    def outbox_pending(self, events: int) -> None:
        """Record how many events wait in the outbox."""
        self._pending.set(events)

    def call_answered(self, method: str, status: str, seconds: float) -> None:
        """Record a gRPC call, by its full method name and the name of its status."""
        attributes = {"rpc.system.name": "grpc", "rpc.method": method, "rpc.response.status_code": status}
        if status != "OK":
            attributes["error.type"] = status
        self._calls.record(seconds, attributes)
