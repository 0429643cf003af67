"""One stack per folder: a lock that the stack and all its children hold, so it is free once all are gone."""

import fcntl
import os
from pathlib import Path
from time import monotonic, sleep

from runtime.process.start_error import StartError

_PATIENCE = 15.0
"""Seconds that the servers of a stack that was killed get to end."""


def hold(folder: Path) -> int:
    """Return a file descriptor that holds the folder's lock; pass it on to every child.

    Raises:
        StartError: a stack is up in this folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    deadline = monotonic() + _PATIENCE
    while not _take(lock):
        holder = os.pread(lock, 20, 0).decode() or "0"
        if Path("/proc", holder).exists() or monotonic() > deadline:
            os.close(lock)
            raise StartError(f"a stack is up already in {folder} (process {holder}): stop that one first")
        sleep(0.05)
    os.truncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
