"""Reading the files that settings name, which may be anything."""

from pathlib import Path
from stat import S_ISREG

MAX_SIZE = 1_000_000
"""Bytes of such a file."""
UNUSABLE = (OSError, ValueError, OverflowError, RecursionError)
"""What reading a file and parsing its content may raise."""
Signature = tuple[int, int, int]
"""A file's inode, size and time of change; another one means another content."""


def read_regular_file(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is a folder, a pipe or a device, or too large.
    """
    status = path.stat()
    if not S_ISREG(status.st_mode):
        raise ValueError("is not a regular file")
    if status.st_size > MAX_SIZE:
        raise ValueError(f"has more than {MAX_SIZE} bytes")
    return path.read_bytes()


def read_signature(path: Path) -> Signature:
    """Return the signature of a file as it is now.

    Raises:
        OSError: there is no such file.
    """
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
