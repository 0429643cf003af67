"""Folders of indexes: each process has one of its own, and finds it again after a restart.

Processes with the same setting, for instance the workers of one server, share a folder. Each locks the first
number that is free in it. The lock ends with the process.
"""

import fcntl
import os
import shutil
import tempfile
from itertools import count
from pathlib import Path
from typing import Self

import msgspec

from runtime.process.start_error import StartError


class SavedState(msgspec.Struct):
    """What a follower knows of the views in its index.

    An index may have newer documents than its state, if the process was killed: their views then have other
    versions than the state, and are read again.
    """

    version: str
    """Of the definition, the words and the library."""
    build: str
    """The build of the projection that the documents are of."""
    versions: dict[str, int]
    """Of all views, by id."""
    documents: list[str]
    """The ids of those with a document."""
    due: list[tuple[float, str]]
    """When documents change by time, with their ids."""
    flag_build: str
    flag_versions: dict[str, int]
    flags_on: dict[str, str]
    """The document's id of each view that has its flag on."""


_decode = msgspec.msgpack.Decoder(SavedState).decode


class IndexFolder:
    """The folder of one index of one process.

    Args:
        root: the folder of the setting; empty for one of this user among the temporary files, where nothing
            is found again: the next process clears what this one leaves.
        name: of the index.

    Raises:
        StartError: the folder cannot be written, on entering the context.
    """

    def __init__(self, root: str, name: str) -> None:
        self._is_temporary = not root
        self._root = Path(root or Path(tempfile.gettempdir()) / f"diptych-search-{os.getuid()}")
        self._parent = self._root / name

    def __enter__(self) -> Self:
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._is_temporary and self._root.lstat().st_uid != os.getuid():
                raise StartError(f"{self._root}: belongs to another user; set DIPTYCH_SEARCH_FOLDER")
            self._parent.mkdir(exist_ok=True)
            self._lock_number()
        except OSError as error:
            raise StartError(f"DIPTYCH_SEARCH_FOLDER: {self._root} cannot be written: {error}") from error
        return self

    def _lock_number(self) -> None:
        for number in count():
            lock = os.open(self._parent / f"{number}.lock", os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
            else:
                self._lock = lock
                self.path = self._parent / str(number)
                return

    def __exit__(self, *_: object) -> None:
        if self._is_temporary:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    @property
    def _state(self) -> Path:
        return self.path / "state"

    def read_state(self, version: str) -> SavedState | None:
        """Return the saved state; None if there is none of this version."""
        if self._is_temporary:
            return None
        try:
            state = _decode(self._state.read_bytes())
        except (OSError, msgspec.MsgspecError):
            return None
        return state if state.version == version else None

    def write_state(self, state: SavedState) -> None:
        """Save a state. The index must have everything that the state names."""
        if self._is_temporary:
            return
        new = self._state.with_suffix(".new")
        new.write_bytes(msgspec.msgpack.encode(state))
        new.replace(self._state)

    def clear(self) -> None:
        """Begin with an empty folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir()
