"""The public keys that callers' tokens are signed with: a JWKS, in a file or at an address, kept current."""

import asyncio
import json
import time
import urllib.request
from pathlib import Path
from typing import Any

from jwt import PyJWK, PyJWKSet, PyJWTError

from runtime.process import logs
from runtime.process.start_error import StartError

log = logs.get_logger(__name__)

_FILE_AGE = 5.0
_ADDRESS_AGE = 300.0
"""Seconds after which keys in use are looked up again."""
_PAUSE = 3.0
"""Seconds between two look-ups for keys that nobody knows."""
_PATIENCE = 5.0
"""Seconds that an address has to answer."""
_SIZE = 1_000_000

ALGORITHMS = {"RSA": "RS256", "OKP": "EdDSA"}
"""The one algorithm for each type of key, whatever a token or a key says of itself."""


class Keys:
    """The current keys by id. Looking them up happens in a thread; the event loop never waits for it."""

    def __init__(self, source: str) -> None:
        """Take the keys from a file's path or an http(s) address.

        Raises:
            StartError: the file has no keys. An address may still be away; its keys come later.
        """
        self._source = source
        self._at_address = source.startswith(("http://", "https://"))
        self._age = _ADDRESS_AGE if self._at_address else _FILE_AGE
        self._keys: dict[str, PyJWK] = {}
        self._content: bytes | None = None
        self._loading: asyncio.Task[None] | None = None
        self._loaded_at = float("-inf")
        self.generation = 0
        """Rises with every change of the keys; what was verified before is to be verified again."""
        if not self._at_address:
            self._load_first()

    @property
    def known(self) -> bool:
        """Whether there are any keys yet."""
        return bool(self._keys)

    def _load_first(self) -> None:
        try:
            self._take(self._read())
        except (OSError, ValueError, PyJWTError) as error:
            raise StartError(f"DIPTYCH_JWKS={self._source}: no keys there: {error}") from error

    def refresh(self) -> None:
        """Look the keys up in the background if the last time is long ago."""
        if time.monotonic() - self._loaded_at > self._age:
            self._load()

    async def find(self, key_id: str) -> PyJWK | None:
        """Return the key of this id, after a look-up if it is unknown and the last one is seconds ago."""
        if key_id not in self._keys:
            if self._loading is None and time.monotonic() - self._loaded_at > _PAUSE:
                self._load()
            if self._loading is not None:
                await asyncio.shield(self._loading)
        return self._keys.get(key_id)

    def _load(self) -> None:
        if self._loading is None:
            self._loading = asyncio.create_task(self._reload())

    async def _reload(self) -> None:
        try:
            self._take(await asyncio.to_thread(self._read))
        except (OSError, ValueError, PyJWTError) as error:
            log.warning("The keys of callers' tokens cannot be read", jwks=self._source, error=str(error))
        finally:
            self._loaded_at = time.monotonic()
            self._loading = None

    def _read(self) -> bytes:
        if not self._at_address:
            return Path(self._source).read_bytes()
        with urllib.request.urlopen(self._source, timeout=_PATIENCE) as answer:  # noqa: S310 - http(s) only
            return bytes(answer.read(_SIZE))

    def _take(self, content: bytes) -> None:
        if content != self._content:
            found = PyJWKSet(_keys_of(json.loads(content)))
            self._keys = {key.key_id: key for key in found if key.key_id and key.key_type in ALGORITHMS}
            self._content = content
            self.generation += 1
        self._loaded_at = time.monotonic()


def _keys_of(document: object) -> list[dict[str, Any]]:
    if isinstance(document, dict) and isinstance(keys := document.get("keys"), list):
        return keys
    raise ValueError("not a JSON Web Key Set")
