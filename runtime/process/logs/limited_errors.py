"""Errors whose number depends on others, such as unreadable data or the calls of clients: a line a second."""

from time import monotonic
from typing import Any

from runtime.process.logs.logger import Logger

INTERVAL = 1.0
"""Seconds between two lines, at least."""


class LimitedErrors:
    """Logs an error at most once a second; the next line says how many were left out since.

    Args:
        log: the logger.
        message: the message of the lines, for instance "View cannot be read".
        level: of the lines, `warning` or `error`.
        fields: further fields of all lines.
    """

    def __init__(self, log: Logger, message: str, level: str = "error", **fields: Any) -> None:
        self._write = getattr(log, level)
        self._message = message
        self._fields = fields
        self._next = 0.0
        self._omitted = 0

    def report(self, **fields: Any) -> None:
        """Log an error with these fields, unless a line was written within the last second."""
        now = monotonic()
        if now < self._next:
            self._omitted += 1
            return
        if self._omitted:
            fields["omitted"] = self._omitted
        self._next, self._omitted = now + INTERVAL, 0
        self._write(self._message, **self._fields, **fields)
