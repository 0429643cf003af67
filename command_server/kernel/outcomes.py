"""How a command ends: accepted with the versions it led to, or rejected with a reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from command_server.kernel.decider import RejectionKind


@dataclass(frozen=True, slots=True)
class Accepted:
    """A command took effect; its events, if any, are durable."""

    versions: Mapping[str, int]
    """Every stream of the command with its version afterwards; the first is the one it was for."""
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Rejection:
    """A command was rejected by a rule or for its expected version; it changed nothing."""

    reason: str
    kind: RejectionKind
    details: Mapping[str, str] = field(default_factory=dict)


Outcome = Accepted | Rejection


class RequestIdReused(Exception):
    """The caller has used this request id for another request, which is what took effect."""


class Overloaded(Exception):
    """Commands wait too long for their turn by now; this one was not taken in."""


class DeadlinePassed(Exception):
    """The caller's deadline passed before the command's turn came; it was not executed."""
