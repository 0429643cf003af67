"""Where the process manager's token comes from: a file that somebody renews, or the issuer itself."""

from pathlib import Path
from typing import Protocol

from runtime.process.regular_file import read_regular_file
from runtime.process.start_error import InvalidSetting

FILE_SETTING = "DIPTYCH_PROCESS_MANAGER_TOKEN"


class TokenSource(Protocol):
    """A token that may change at any time."""

    setting: str
    """The setting that names it, for messages."""
    name: str
    """What that setting says: a file or a URL."""
    problem: str
    """Why the present token has not been replaced."""

    def read(self) -> str:
        """Return the present token.

        Raises:
            OSError, ValueError: there is none.
        """

    def note_rejection(self) -> None:
        """Note that a server did not accept the present token."""

    async def prepare(self) -> None:
        """Try once to have a token."""

    async def run(self) -> None:
        """Renew it until cancelled."""


class TokenFile:
    """A token in a file, which is read for each call.

    Args:
        path: of the file.

    Raises:
        InvalidSetting: it is a folder, a pipe or a device.
    """

    setting = FILE_SETTING
    problem = "the file was not renewed"

    def __init__(self, path: str) -> None:
        self.name = path
        self._path = Path(path)
        if self._path.exists() and not self._path.is_file():
            raise InvalidSetting(f"{FILE_SETTING}={path}: is not a regular file")

    def read(self) -> str:
        try:
            return read_regular_file(self._path).decode().strip()
        except OSError as error:
            raise OSError(f"cannot read the file: {error}") from error
        except ValueError as error:
            raise ValueError(f"cannot read the file: {error}") from error

    def note_rejection(self) -> None:
        """Nothing to do: somebody else writes the file."""

    async def prepare(self) -> None:
        """Nothing to do."""

    async def run(self) -> None:
        """Nothing to do."""
