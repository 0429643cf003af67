"""A command that waits for its result, and the ways in which it ends."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

from command_server.kernel.batch import Request
from command_server.kernel.outcomes import CommandResult, DeadlinePassed, Outcome
from command_server.kernel.snapshot import FoldedState


@dataclass(slots=True)
class QueuedCommand:
    """A command of `GroupCommit.execute`, which waits for the result."""

    request: Request
    result: "asyncio.Future[CommandResult]"
    folded: dict[str, FoldedState] = field(default_factory=dict)
    """States of its streams that were folded for it."""
    locked_since: float | None = None
    """When one of its streams was first found locked by another transaction; `perf_counter()`, in seconds."""


def fail(batch: Sequence[QueuedCommand], error: BaseException) -> None:
    for queued in batch:
        if not queued.result.done():
            queued.result.set_exception(error)


def complete(queued: QueuedCommand, result: Outcome | Exception, incarnation: str) -> None:
    if isinstance(result, Exception):
        fail([queued], result)
    elif not queued.result.done():
        queued.result.set_result(CommandResult(result, incarnation))


def is_waiting(queued: QueuedCommand) -> bool:
    return not queued.result.done()


def drop_expired(batch: Sequence[QueuedCommand]) -> list[QueuedCommand]:
    """Return the commands whose caller waits; those past their deadline fail."""
    now = perf_counter()
    return [queued for queued in batch if is_awaited(queued, now)]


def is_awaited(queued: QueuedCommand, now: float) -> bool:
    """Return whether a command's caller waits; one whose deadline has passed fails."""
    if (deadline := queued.request.deadline) is not None and deadline <= now:
        fail([queued], DeadlinePassed())
    return not queued.result.done()
