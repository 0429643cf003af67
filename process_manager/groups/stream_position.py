"""An instance's position in a stream, and the event at which it failed."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """An instance's position in a stream."""

    version: int = 0
    """Of the last processed event."""
    failed_input: str = ""
    """Why the next event could not be processed; empty if there is no such event. `Instance` writes it."""

    @property
    def failed_version(self) -> int:
        """The version of the event that could not be processed; 0 if there is none.

        In a stream whose events belong to several instances it need not follow `version`.
        """
        if not self.failed_input:
            return 0
        match = re.match(r"version (\d+)", self.failed_input, re.ASCII)
        return int(match[1]) if match else self.version + 1
