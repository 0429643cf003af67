"""One stack per folder: a lock that the stack and all its children hold, free once all of them have ended."""

import fcntl
import os
from pathlib import Path
from time import monotonic, sleep

from runtime.process.start_error import StartError

_TIMEOUT = 15.0
"""Seconds that the servers of a killed stack get to end."""


def acquire(folder: Path) -> int:
    """Return a file descriptor that holds the folder's lock; every child must inherit it.

    Raises:
        StartError: a stack runs in this folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    deadline = monotonic() + _TIMEOUT
    while not _try_lock(lock):
        holder = os.pread(lock, 20, 0).decode() or "0"
        if Path("/proc", holder).exists() or monotonic() > deadline:
            os.close(lock)
            raise StartError(f"a stack runs already in {folder} (process {holder}): stop that one first")
        sleep(0.05)
    os.truncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
