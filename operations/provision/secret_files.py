"""Files with secrets: each is replaced as a whole, and nobody but its owner can read it."""

import os
from pathlib import Path

from runtime.process.start_error import StartError


def make_folder(folder: Path) -> None:
    """Make a folder that only its owner can enter.

    Raises:
        StartError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise StartError(f"{folder}: {error.strerror or error}") from error


def write_file(path: Path, content: str, mode: int = 0o600) -> None:
    """Replace a file at once.

    Raises:
        StartError: it cannot be written.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
        new.replace(path)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror or error}") from error


def read_file(path: Path) -> str:
    """Return the content of a file.

    Raises:
        StartError: it cannot be read.
    """
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        raise StartError(f"{path}: cannot be read: {error}") from error
