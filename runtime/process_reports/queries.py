"""The queries whose durations a server reports."""

from collections.abc import Iterable, Mapping

from runtime.grpc.routes import Service
from runtime.process_reports.report import QUERIES
from runtime.process_reports.window import Label
from runtime.telemetry.instruments import Histogram
from runtime.telemetry.metrics import CALL_DURATION


def report_queries(services: Iterable[Service]) -> Mapping[str, tuple[Histogram, Label]]:
    """Return the durations of all methods of these services with one response, by method.

    A watch lasts as long as its caller likes.
    """
    methods = {
        f"{service.descriptor.full_name}/{method.name}"
        for service in services
        for method in service.descriptor.methods
        if not method.server_streaming
    }

    def get_label(key: tuple[object, ...]) -> str | None:
        return str(key[1]) if key[1] in methods else None

    return {QUERIES: (CALL_DURATION, get_label)}
