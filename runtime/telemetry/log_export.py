"""Exports log lines with OpenTelemetry, through a process of its own (`runtime.telemetry.log_exporter`).

How it works. A rendered line goes into a second queue beside that of the stream (`runtime.process.logs`),
whose thread writes it to a pipe. The exporter reads the pipe, makes a record of each line and exports it;
so a line costs this process one more write, and not the encoding, which would take a tenth of a command
server's time.

- A collector that is slow or away fills the exporter's queue, which drops the oldest records. If the exporter
  itself does not read, lines are dropped here once CAPACITY bytes wait.
- An exporter that dies is replaced. The pipe stays, so no written line is lost.
- When this process ends, even by SIGKILL, the pipe ends; the exporter exports its last lines, and ends.
- The exporter's own log lines go to the stream alone, so that an export that fails exports nothing.
"""

import json
import os
import sys
from collections.abc import Mapping
from subprocess import Popen, TimeoutExpired
from threading import Event, Thread

from runtime.process import logs
from runtime.process.logs.logger import pipeline
from runtime.process.logs.stream_writer import StreamWriter

CAPACITY = 2 * 2**20
"""Bytes of the lines that wait for the exporter."""
FLUSH_TIMEOUT, EXPORT_TIMEOUT = 0.5, 1.3
"""Seconds of waiting at the end until its last lines are in the pipe, then until they are exported."""
_RESTART_DELAY = 1.0
"""Seconds before an exporter that has died is replaced."""

log = logs.get_logger(__name__)


class LogExport:
    """Exports all lines of this process from its creation until `stop`.

    Args:
        service: the name of this process.
        log_format: of the exporter's own lines, `json` or `console`.
        resource: the attributes of this process.
    """

    def __init__(self, service: str, log_format: str, resource: Mapping[str, object]) -> None:
        options = {"service": service, "format": log_format, "resource": dict(resource)}
        self._command = [sys.executable, "-m", "runtime.telemetry.log_exporter", json.dumps(options)]
        self._reading, self._writing = os.pipe()
        self._writer = StreamWriter(self._writing, pipeline.report_loss, CAPACITY)
        self._stopping = Event()
        self._process = self._start()
        Thread(target=self._replace, name="log exporter", daemon=True).start()
        pipeline.export = self._writer

    def _start(self) -> Popen[bytes]:
        return Popen(self._command, stdin=self._reading)  # noqa: S603 - this interpreter, and our own module

    def _replace(self) -> None:
        """Replace the exporter whenever it dies."""
        while True:
            code = self._process.wait()
            if self._stopping.wait(_RESTART_DELAY):
                return
            log.error("Log exporter died; replacing it", code=code)
            self._process = self._start()

    def stop(self) -> None:
        """Export the lines so far, within these times, and end."""
        pipeline.export = None
        self._stopping.set()
        if not self._writer.flush(FLUSH_TIMEOUT):
            self._process.kill()
            return
        os.close(self._writing)
        try:
            self._process.wait(EXPORT_TIMEOUT)
        except TimeoutExpired:
            self._process.kill()
