"""A report of one process, as it is stored: JSON."""

import os
import socket
from uuid import uuid4

import msgspec

INTERVAL = 5.0
"""Seconds between two reports of a process."""
WINDOW = 300.0
"""Seconds that the measurements of a report go back."""
LIFETIME = 15.0
"""Seconds after its last report for which a process counts as living."""
KEPT = 600.0
"""Seconds for which the store keeps a report that is not renewed."""

COMMANDS = "commands"
"""Counts of commands by outcome: `accepted`, `rejected`, `failed`."""
FAILED_EVENTS = "failed events"
"""Counts of failed attempts to apply an event, by event type."""
QUERIES = "queries"
"""Durations of queries by method, in seconds."""
LAG = "lag"
"""Times from an event's commit until a view includes it, by view, in seconds."""

INSTANCE = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
"""Identifies this process among all that have ever run."""


class Slice(msgspec.Struct, omit_defaults=True):
    """The measurements of some seconds."""

    age: float
    """Seconds from its last measurement to the report."""
    counts: dict[str, dict[str, int]] = {}
    """Counts by name and label."""
    durations: dict[str, dict[str, dict[int, int]]] = {}
    """By name and label the number of durations in each bucket of `instruments.SECONDS`."""


class Report(msgspec.Struct, omit_defaults=True):
    """The report of a process about itself."""

    kind: str
    """For instance `command_server`."""
    version: str
    uptime: float
    """Seconds since its start."""
    contexts: list[str] = []
    leads: bool | None = None
    """Whether it leads; None for processes that need no leader."""
    partitions: list[int] | None = None
    """The partitions that it holds; None for processes that hold none."""
    staleness: dict[str, float] = {}
    """By projection the seconds before the report up to which the views include all committed events."""
    slices: list[Slice] = []


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Report).decode
