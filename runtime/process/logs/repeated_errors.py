"""Errors of something that is tried again and again: logged once while they repeat."""

import re
from typing import Any

from runtime.process.logs.logger import Logger

_MAX_TEXTS = 16
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+")
"""Parts in which two equal errors may differ, such as ports and durations."""


class RepeatedErrors:
    """Logs a warning for each new error, and one line when all is well again.

    Args:
        log: the logger.
        message: the message of the warnings, for instance "Lease renewal failed".
        max_texts: different errors that are logged before the next success.
        fields: further fields of all lines.
    """

    def __init__(self, log: Logger, message: str, *, max_texts: int = _MAX_TEXTS, **fields: Any) -> None:
        self._log = log
        self._message = message
        self._max_texts = max_texts
        self._fields = fields
        self._texts: set[str] = set()
        self._count = 0

    def report(self, error: BaseException | str) -> None:
        """Log an error, unless it was logged since the last success."""
        self._count += 1
        text = error if isinstance(error, str) else describe_error(error)
        kind = _NUMBERS.sub("0", text)
        if kind not in self._texts and len(self._texts) < self._max_texts:
            self._texts.add(kind)
            self._log.warning(self._message, error=text, **self._fields)

    def reset(self) -> None:
        """Note a success: the next error is logged again."""
        if self._count:
            self._log.info("Recovered", after=self._message, failures=self._count, **self._fields)
            self._texts.clear()
            self._count = 0


def describe_error(error: BaseException) -> str:
    """Return an error's type and text; of a group those of its errors. Never raises."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(map(describe_error, error.exceptions))
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__
