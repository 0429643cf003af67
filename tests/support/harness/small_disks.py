"""Small disks for servers that are to run out of space."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FILLER = "filler"


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a disk of this size at a new folder. This needs root."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(disk: Path, leave: int = 0) -> None:
    """Take all space of a disk but for these bytes."""
    space = os.statvfs(disk)
    size = max(space.f_bavail * space.f_frsize - leave, 0)
    with suppress(OSError), (disk / FILLER).open("ab") as file:  # others fill it meanwhile
        file.write(bytes(size))


def empty(disk: Path) -> None:
    """Return the space that `fill` has taken."""
    (disk / FILLER).unlink()
