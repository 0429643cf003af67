"""The export: reads events from the operations server, and continues where a connection was lost."""

from collections.abc import Callable
from time import monotonic, sleep

from diptych.operations.v1.operations_service_pb2 import ExportEventsRequest

from operations.client.api import OperationsApi
from operations.client.errors import CallRefused
from operations.export.writers import Writer
from operations.progress import Progress
from runtime.process.start_error import NotAsked

ATTEMPTS = 30
"""Attempts in a row without an event after which the export gives up."""
PAUSE = 1.0
"""Seconds before the next attempt."""


class Export:
    """One export.

    Args:
        api: the operations server.
        writer: of the file.
        report: prints a line of progress.
    """

    def __init__(self, api: OperationsApi, writer: Writer, report: Callable[[str], None]) -> None:
        self._api = api
        self._writer = writer
        self._report = report
        self._start = self._events = 0
        self.position = 0
        """All events up to this position are in the file."""

    def run(self, request: ExportEventsRequest) -> None:
        """Write the events that the request selects.

        Raises:
            StartError: the server refuses, or does not answer again and again.
        """
        self._start = self.position = request.after_position
        progress, began, attempts = Progress("positions", self._report), monotonic(), 0
        while True:
            before = self.position
            try:
                self._follow(request, progress)
                break
            except CallRefused:
                raise
            except NotAsked as error:
                attempts = 1 if self.position > before else attempts + 1
                if attempts == ATTEMPTS:
                    raise
                self._report(f"{error}; trying again after position {self.position:,}")
                sleep(PAUSE)
        seconds = monotonic() - began
        self._report(f"{self._events:,} events up to position {self.position:,} in {seconds:.1f} s")

    def _follow(self, request: ExportEventsRequest, progress: Progress) -> None:
        request.after_position = self.position
        for response in self._api.follow(self._api.stub.ExportEvents, request):
            self._writer.write(response.events)
            self.position = response.position
            request.until_position = response.until_position
            self._events += len(response.events)
            progress.report(response.position - self._start, response.until_position - self._start)
