"""Ends streams whose caller's token or certificate expires, or is no longer accepted, while they run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runtime.grpc.caller import Caller
from runtime.grpc.certificate_callers import CertificateCallers, TableEntry
from runtime.grpc.jwks import KeySet, keys_unavailable_error
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.verification_keys import VerificationKey

Proof = VerificationKey | TableEntry
"""What identified a caller; without it the caller is nobody."""


class StreamLifetimes:
    """The open streams with what identified their callers: the key of a token, or an entry of the table.

    Streams need no task of their own: each runs within a timeout, and a withdrawn key moves it to now.
    """

    def __init__(self, keys: KeySet, certificates: CertificateCallers | None = None) -> None:
        self._keys = keys
        self._certificates = certificates
        self._open: dict[asyncio.Timeout, Proof] = {}
        keys.on_change = self._end_withdrawn
        if certificates is not None:
            certificates.files.on_change.append(self._end_withdrawn)

    @asynccontextmanager
    async def limit(self, caller: Caller, proof: Proof) -> AsyncIterator[None]:
        """Bound a stream by its caller's token or certificate.

        Raises:
            RpcError: `TOKEN_EXPIRED`, or `KEYS_UNAVAILABLE` if the keys have expired.
        """
        lifetime = asyncio.timeout(caller.expires_in())
        try:
            async with lifetime:
                self._open[lifetime] = proof
                yield
        except TimeoutError:
            if not lifetime.expired():
                raise
            raise self._build_error(proof) from None
        finally:
            self._open.pop(lifetime, None)

    def _end_withdrawn(self) -> None:
        now = asyncio.get_running_loop().time()
        for lifetime, proof in list(self._open.items()):
            if not self._is_accepted(proof) and not lifetime.expired():
                lifetime.reschedule(now)

    def _is_accepted(self, proof: Proof) -> bool:
        if isinstance(proof, TableEntry):
            return self._certificates is not None and self._certificates.has(proof)
        return self._keys.has(proof)

    def _build_error(self, proof: Proof) -> RpcError:
        is_accepted = self._is_accepted(proof)
        if isinstance(proof, TableEntry):
            cause, end = ("EXPIRED", "expired") if is_accepted else ("WITHDRAWN", "been withdrawn")
            text = f"the caller's certificate has {end} during the call"
            return RpcError("TOKEN_EXPIRED", text, {"cause": f"CERTIFICATE_{cause}"})
        if is_accepted:
            return RpcError("TOKEN_EXPIRED", "the caller's token has expired during the call")
        if not self._keys.loaded:
            return keys_unavailable_error()
        text = "the key of the caller's token was withdrawn during the call"
        return RpcError("TOKEN_EXPIRED", text, {"cause": "KEY_WITHDRAWN"})
