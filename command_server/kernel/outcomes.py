"""The outcomes of a command: accepted with the new versions, or rejected with a reason."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from command_server.kernel.decider import RejectionKind


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """The command took effect. Its events, if there are any, are durable."""

    versions: Mapping[str, int]
    """The version of each stream after the command. The command's target comes first."""
    recorded_at: datetime


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """A domain rule or the expected version rejected the command. No event was recorded."""

    reason: str
    kind: RejectionKind
    details: Mapping[str, str] = msgspec.field(default_factory=dict)


Outcome = Accepted | Rejection


class CommandResult(msgspec.Struct, frozen=True, gc=False):
    """The outcome of a command, and the database incarnation that recorded it."""

    outcome: Outcome
    incarnation: str


class RequestIdReused(Exception):
    """The caller has already used the request id for another request."""


class Overloaded(Exception):
    """The command would have waited too long for its commit. It was not executed.

    Args:
        retry_after: seconds after which another attempt makes sense.
    """

    def __init__(self, retry_after: float = 1.0) -> None:
        super().__init__(f"retry after {retry_after:.3f} s")
        self.retry_after = retry_after


class DeadlinePassed(Exception):
    """The caller's deadline passed while the command was queued. It was not executed."""


class OutcomePending(Exception):
    """The caller's deadline is near, and the command is in a commit that takes long. It may take effect.

    Args:
        retry_after: seconds after which the caller should repeat the command to get its outcome.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"retry after {retry_after:.3f} s")
        self.retry_after = retry_after
