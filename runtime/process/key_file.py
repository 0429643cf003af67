"""The key ring of a running process, read again whenever its file changes."""

import asyncio
import stat
from collections.abc import Collection
from pathlib import Path
from time import time

from contracts.key_ring import KeyRing, Purpose
from runtime.process import logs
from runtime.process.regular_file import UNUSABLE, Signature, read_regular_file, read_signature
from runtime.process.start_error import InvalidSetting
from runtime.telemetry import metrics

CHECK_INTERVAL = 1.0
"""Seconds between two looks at the file."""

log = logs.get_logger(__name__)


def read_ring(path: str) -> KeyRing:
    """Return the key ring of a file, for a command that needs it once.

    Raises:
        InvalidSetting: the file cannot be read, or is no key ring.
    """
    try:
        return KeyRing.parse(read_regular_file(Path(path)))
    except UNUSABLE as error:
        raise InvalidSetting(f"DIPTYCH_KEYS={path}: cannot use the key ring: {error}") from error


class KeyFile:
    """The current key ring. A file that cannot be used leaves the previous keys in use.

    Args:
        path: of the file; the setting `keys`.
        purposes: those for which this process signs or verifies.

    Raises:
        InvalidSetting: the file cannot be read, is no key ring, or has no key to sign with for a purpose.
    """

    def __init__(self, path: str, purposes: Collection[Purpose]) -> None:
        self._path = Path(path)
        self._purposes = purposes
        try:
            self._signature, self._ring = self._load()
        except UNUSABLE as error:
            raise InvalidSetting(f"DIPTYCH_KEYS={path}: cannot use the key ring: {error}") from error
        self._error = ""
        metrics.KEY_RING_VALID.set(1)

    def get_ring(self) -> KeyRing:
        return self._ring

    @property
    def error(self) -> str:
        """Why the file cannot be used now; empty if it can."""
        return self._error

    async def run(self) -> None:
        """Read the file again after each change, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            await self.reload()

    async def reload(self) -> None:
        """Read the file if it has changed; log a failure once."""
        try:
            if await asyncio.to_thread(read_signature, self._path) == self._signature and not self._error:
                return
            self._signature, self._ring = await asyncio.to_thread(self._load)
        except UNUSABLE as error:
            if repr(error) != self._error:
                self._error = repr(error)
                metrics.KEY_RING_VALID.set(0)
                log.error(
                    "Key ring invalid; keeping the previous keys", keys=str(self._path), error=str(error)
                )
        else:
            self._error = ""
            metrics.KEY_RING_VALID.set(1)
            log.info("Key ring loaded", keys=str(self._path), ids=list(self._ring.keys))

    def _load(self) -> tuple[Signature, KeyRing]:
        signature = read_signature(
            self._path
        )  # before the content: a change in between is seen by the next look
        ring = KeyRing.parse(read_regular_file(self._path))
        ring.check(self._purposes, time())
        if (mode := self._path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
            log.warning("Key ring open to others", keys=str(self._path), mode=stat.filemode(mode))
        return signature, ring
