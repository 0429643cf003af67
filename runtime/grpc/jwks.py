"""The public keys that verify callers' tokens: a JSON Web Key Set from a file or a URL, kept up to date.

How it works. `refresh` is called with every token, and every second by the server's probe. It reloads keys
that are older than a few seconds (a file) or minutes (a URL). A set that was read takes effect at once, also
an empty one: its issuer has withdrawn the keys. A set that cannot be read leaves the last one in use for
`max_age` seconds from its reading; then the keys expire, and no token is verified until a set can be read.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path

from runtime import http_fetch
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.verification_keys import VerificationKey, parse_keys
from runtime.process import logs
from runtime.process.logs.repeated_errors import describe_error
from runtime.process.regular_file import read_regular_file
from runtime.process.start_error import InvalidSetting

log = logs.get_logger(__name__)

_FILE_INTERVAL = 5.0
_URL_INTERVAL = 300.0
"""Seconds after which keys in use are reloaded."""
_RETRY_INTERVAL = 10.0
"""Seconds after which a failed reload is repeated."""
_UNKNOWN_KEY_INTERVAL = 3.0
"""Minimum seconds between two reloads caused by unknown key ids."""
_MAX_WAIT = 2.0
"""Seconds that a call waits for a reload; a URL that hangs must not hold the calls of unknown keys."""
_MAX_PROBLEM_LENGTH = 500
"""Characters of an error at the start."""


def keys_unavailable_error() -> RpcError:
    return RpcError("KEYS_UNAVAILABLE", "the keys of callers' tokens cannot be read", retry_after=1.0)


class KeySet:
    """The current keys by id. They are loaded in a thread, so the event loop never blocks."""

    def __init__(self, source: str, max_age: float = inf, *, allow_http: bool = False) -> None:
        """Load the keys of a file; keys of a URL are loaded with the first refresh.

        Args:
            source: a file's path or an http(s) URL.
            max_age: seconds that keys are used after they were last read.
            allow_http: whether a URL of another host may be without TLS.

        Raises:
            InvalidSetting: the file cannot be read, is not a key set, or has no usable key; or the URL is not
                allowed.
        """
        self._source = source
        self._max_age = max_age
        self._is_url = source.startswith(("http://", "https://"))
        self._keys: Mapping[str, VerificationKey] = {}
        self._content: bytes | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._tried_at = self._read_at = -inf
        self._failed = False
        self._due_at = -inf
        """When `refresh` has something to do; it runs with every call."""
        self.generation = 0
        """Number of changes of the keys. Tokens verified in an earlier generation may be invalid now."""
        self.on_change: Callable[[], None] = lambda: None
        """Called after each change."""
        self._failures = logs.RepeatedErrors(log, "Reading of JWKS failed", jwks=source)
        if not self._is_url:
            self._load_file()
        elif source.startswith("http://") and not (allow_http or http_fetch.is_loopback(source)):
            text = "use https, or set DIPTYCH_JWKS_ALLOW_HTTP if nobody can alter what this network carries"
            raise InvalidSetting(f"DIPTYCH_JWKS: is a URL of another host without TLS: {text}")

    @property
    def loaded(self) -> bool:
        """Whether a key set, perhaps an empty one, is in use."""
        return self._content is not None

    @property
    def reloading(self) -> bool:
        return self._reloading is not None

    def has(self, key: VerificationKey) -> bool:
        """Return whether a key is still in use."""
        return self._keys.get(key.id) == key

    def refresh(self) -> None:
        """Drop the keys if they have expired, and start to reload them if they are too old."""
        now = time.monotonic()
        if now <= self._due_at:
            return
        if self.loaded and now - self._read_at > self._max_age:
            self._expire()
        if now - self._tried_at > self._get_interval():
            self._start_reload()

    async def wait_loaded(self, seconds: float) -> bool:
        """Refresh the keys; return whether a set is in use, after waiting for one that is being read."""
        self.refresh()
        if not self.loaded and self._reloading is not None:
            await asyncio.wait((self._reloading,), timeout=seconds)
        return self.loaded

    async def find(self, key_id: str) -> VerificationKey | None:
        """Return a key, or None. An unknown id triggers a reload unless the last one was seconds ago.

        After None, `reloading` tells whether a reload that may find the key has not ended.
        """
        if key_id not in self._keys:
            if self._reloading is None and time.monotonic() - self._tried_at > _UNKNOWN_KEY_INTERVAL:
                self._start_reload()
            if self._reloading is not None:
                await asyncio.wait((self._reloading,), timeout=_MAX_WAIT)
        return self._keys.get(key_id)

    def _get_interval(self) -> float:
        interval = min(_URL_INTERVAL if self._is_url else _FILE_INTERVAL, self._max_age / 4)
        return min(interval, _RETRY_INTERVAL) if self._failed else interval

    def _note_try(self) -> None:
        self._tried_at = time.monotonic()
        self._due_at = min(self._tried_at + self._get_interval(), self._read_at + self._max_age)

    def _start_reload(self) -> None:
        if self._reloading is None:
            self._reloading = asyncio.create_task(self._reload())

    def _load_file(self) -> None:
        try:
            content = read_regular_file(Path(self._source))
            keys = parse_keys(content)
            if not keys.usable:
                raise ValueError(f"no usable key; {keys.describe_left_out()}".removesuffix("; "))
        except Exception as error:
            problem = describe_error(error)[:_MAX_PROBLEM_LENGTH]
            raise InvalidSetting(f"DIPTYCH_JWKS={self._source}: cannot read the keys: {problem}") from error
        self._apply(content)
        self._note_try()

    async def _reload(self) -> None:
        try:
            self._apply(await self._read())
            self._failed = False
            self._failures.reset()
        except Exception as error:  # PyJWT and JSON raise anything for a document that is no key set
            self._failed = True
            self._failures.report(describe_error(error) + self._describe_expiry())
        finally:
            self._note_try()
            self._reloading = None

    async def _read(self) -> bytes:
        if self._is_url:
            return await http_fetch.fetch(self._source)
        return await asyncio.to_thread(read_regular_file, Path(self._source))

    def _apply(self, content: bytes) -> None:
        """Take over a key set.

        Raises:
            Exception: it is none.
        """
        if content != self._content:
            keys = parse_keys(content)
            if keys.left_out:
                log.warning("Keys of JWKS left out", jwks=self._source, error=keys.describe_left_out())
            if not keys.usable:
                log.warning("JWKS has no usable key; all tokens are refused", jwks=self._source)
            self._content = content
            self._change(keys.usable)
        self._read_at = time.monotonic()

    def _expire(self) -> None:
        log.error("Keys of JWKS expired", jwks=self._source, error=f"not read for {self._max_age:g} s")
        self._content = None
        self._change({})

    def _change(self, keys: Mapping[str, VerificationKey]) -> None:
        self._keys = keys
        self.generation += 1
        self.on_change()

    def _describe_expiry(self) -> str:
        """Return for how long the keys are used that were read last."""
        if not self.loaded:
            return "; no keys are in use"
        if self._max_age == inf:
            return ""
        left = timedelta(seconds=self._read_at + self._max_age - time.monotonic())
        return f"; the keys that were read last expire at {datetime.now(UTC) + left:%Y-%m-%dT%H:%M:%SZ}"
