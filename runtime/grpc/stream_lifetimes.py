"""Ends streams whose caller's token expires, or whose token's key is withdrawn, while they run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runtime.grpc.caller import Caller
from runtime.grpc.jwks import KeySet, keys_unavailable_error
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.verification_keys import VerificationKey


class StreamLifetimes:
    """The open streams with the keys of their callers' tokens.

    Streams need no task of their own: each runs within a timeout, and a withdrawn key moves it to now.
    """

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys
        self._open: dict[asyncio.Timeout, VerificationKey] = {}
        keys.on_change = self._end_withdrawn

    @asynccontextmanager
    async def limit(self, caller: Caller, key: VerificationKey) -> AsyncIterator[None]:
        """Bound a stream by its caller's token, which was verified with this key.

        Raises:
            RpcError: `TOKEN_EXPIRED`, or `KEYS_UNAVAILABLE` if the keys have expired.
        """
        lifetime = asyncio.timeout(caller.expires_in())
        try:
            async with lifetime:
                self._open[lifetime] = key
                yield
        except TimeoutError:
            if not lifetime.expired():
                raise
            raise self._build_error(key) from None
        finally:
            self._open.pop(lifetime, None)

    def _end_withdrawn(self) -> None:
        now = asyncio.get_running_loop().time()
        for lifetime, key in list(self._open.items()):
            if not self._keys.has(key) and not lifetime.expired():
                lifetime.reschedule(now)

    def _build_error(self, key: VerificationKey) -> RpcError:
        if self._keys.has(key):
            return RpcError("TOKEN_EXPIRED", "the caller's token has expired during the call")
        if not self._keys.loaded:
            return keys_unavailable_error()
        text = "the key of the caller's token was withdrawn during the call"
        return RpcError("TOKEN_EXPIRED", text, {"cause": "KEY_WITHDRAWN"})
