"""A batch that one of its commands has failed is divided until that command fails alone.

A half whose other half succeeded is known to hold the faulty command, so it is divided without running it.
What follows a half that failed waits, and then runs as one batch. One faulty command among n therefore costs
some log2 n further transactions (docs/adr/0036), and the others commit in their order of arrival.
"""

from collections.abc import Awaitable, Callable, Sequence

from command_server.kernel.ports import StoreLocked, StoreUnavailable
from command_server.kernel.queued_command import QueuedCommand, drop_expired, fail

Commit = Callable[[Sequence[QueuedCommand]], Awaitable[None]]


async def isolate(
    batch: Sequence[QueuedCommand],
    error: Exception,
    commit: Commit,
    refuse: Callable[[QueuedCommand, Exception], None],
) -> None:
    """Run the commands of a failed batch again; those that fail alone are refused.

    Without a store all that are left fail: parts of the batch would fail as well, each after its own reruns.

    Args:
        batch: the commands, in order of arrival.
        error: with which the batch failed.
        commit: runs commands in one transaction.
        refuse: called with each command that fails alone, and its error.
    """
    commands, waiting = list(batch), list[QueuedCommand]()
    known_error: Exception | None = error
    try:
        while commands or waiting:
            if not commands:
                commands, waiting, known_error = drop_expired(waiting), [], None
            known_error = known_error or await _try(commit, commands)
            if known_error is None:
                commands = []
            elif len(commands) == 1:
                refuse(commands[0], known_error)
                commands, known_error = [], None
            else:
                middle = len(commands) // 2
                left, right = commands[:middle], commands[middle:]
                if left_error := await _try(commit, left):
                    commands, waiting, known_error = left, right + waiting, left_error
                else:  # a single command is run, for its own error
                    commands, known_error = right, known_error if len(right) > 1 else None
    except (StoreUnavailable, StoreLocked) as lost:
        fail([*commands, *waiting], lost)


async def _try(commit: Commit, commands: Sequence[QueuedCommand]) -> Exception | None:
    """Run commands in one transaction, and return the error that one of them may have caused."""
    try:
        if commands:
            await commit(commands)
    except (StoreUnavailable, StoreLocked):
        raise
    except Exception as error:
        return error
    return None
