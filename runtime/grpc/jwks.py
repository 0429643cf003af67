"""The public keys that verify callers' tokens: a JSON Web Key Set from a file or a URL, kept up to date."""

import asyncio
import json
import time
import urllib.request
from pathlib import Path
from typing import Any

from jwt import PyJWK, PyJWKSet

from runtime.process import logs
from runtime.process.logs.repeated_errors import describe_error
from runtime.process.regular_file import read_regular_file
from runtime.process.start_error import InvalidSetting

log = logs.get_logger(__name__)

_FILE_MAX_AGE = 5.0
_URL_MAX_AGE = 300.0
"""Seconds after which keys in use are reloaded."""
_UNKNOWN_KEY_INTERVAL = 3.0
"""Minimum seconds between two reloads caused by unknown key ids."""
_FETCH_TIMEOUT = 5.0
"""Seconds after which a request to the URL fails."""
_MAX_WAIT = 2.0
"""Seconds that a call waits for a reload; a URL that hangs must not hold the calls of unknown keys."""
_MAX_SIZE = 1_000_000
"""Maximum size of a response in bytes; more is cut off."""

ALGORITHMS = {"RSA": "RS256", "OKP": "EdDSA"}
"""The only algorithm accepted for each key type. The `alg` of a token or a key is not trusted."""


class KeySet:
    """The current keys by id. They are loaded in a thread, so the event loop never blocks."""

    def __init__(self, source: str) -> None:
        """Load the keys of a file; keys of a URL are loaded with the first token.

        Args:
            source: a file's path or an http(s) URL.

        Raises:
            InvalidSetting: the file cannot be read or is not a key set.
        """
        self._source = source
        self._is_url = source.startswith(("http://", "https://"))
        self._max_age = _URL_MAX_AGE if self._is_url else _FILE_MAX_AGE
        self._keys: dict[str, PyJWK] = {}
        self._content: bytes | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._loaded_at = float("-inf")
        self.generation = 0
        """Number of changes of the keys. Tokens verified in an earlier generation may be invalid now."""
        self._failures = logs.RepeatedErrors(log, "Reading of JWKS failed", jwks=source)
        if not self._is_url:
            self._load_file()

    @property
    def loaded(self) -> bool:
        """Whether there is at least one key."""
        return bool(self._keys)

    @property
    def reloading(self) -> bool:
        return self._reloading is not None

    def _load_file(self) -> None:
        try:
            self._parse(self._read())
        except Exception as error:
            text = f"DIPTYCH_JWKS={self._source}: cannot read the keys: {describe_error(error)}"
            raise InvalidSetting(text) from error

    def refresh(self) -> None:
        """Start to reload the keys in the background if they are too old."""
        if time.monotonic() - self._loaded_at > self._max_age:
            self._start_reload()

    async def find(self, key_id: str) -> PyJWK | None:
        """Return a key, or None. An unknown id triggers a reload unless the last one was seconds ago.

        After None, `reloading` tells whether a reload that may find the key has not ended.
        """
        if key_id not in self._keys:
            if self._reloading is None and time.monotonic() - self._loaded_at > _UNKNOWN_KEY_INTERVAL:
                self._start_reload()
            if self._reloading is not None:
                await asyncio.wait((self._reloading,), timeout=_MAX_WAIT)
        return self._keys.get(key_id)

    def _start_reload(self) -> None:
        if self._reloading is None:
            self._reloading = asyncio.create_task(self._reload())

    async def _reload(self) -> None:
        try:
            self._parse(await asyncio.to_thread(self._read))
            self._failures.reset()
        except Exception as error:  # PyJWT raises anything for a document that is no key set
            self._failures.report(error)
        finally:
            self._loaded_at = time.monotonic()
            self._reloading = None

    def _read(self) -> bytes:
        if not self._is_url:
            return read_regular_file(Path(self._source))
        with urllib.request.urlopen(self._source, timeout=_FETCH_TIMEOUT) as response:  # noqa: S310 - http(s) only
            return _read_within(response, time.monotonic() + _FETCH_TIMEOUT)

    def _parse(self, content: bytes) -> None:
        if content != self._content:
            keys = PyJWKSet(_extract_keys(json.loads(content)))
            self._keys = {key.key_id: key for key in keys if key.key_id and key.key_type in ALGORITHMS}
            self._content = content
            self.generation += 1
        self._loaded_at = time.monotonic()


def _read_within(response: Any, deadline: float) -> bytes:
    """Return a response's body, unless it arrives too slowly: each part alone may be in time."""
    content = b""
    while len(content) < _MAX_SIZE and (part := response.read1(_MAX_SIZE)):
        content += part
        if time.monotonic() > deadline:
            raise TimeoutError(f"no complete answer within {_FETCH_TIMEOUT:.0f} s")
    return content[:_MAX_SIZE]


def _extract_keys(document: object) -> list[dict[str, Any]]:
    if isinstance(document, dict) and isinstance(keys := document.get("keys"), list):
        return keys
    raise ValueError("not a JSON Web Key Set")
