"""Callers that their certificates identify: a table of names and scopes, read again when it changes."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from runtime.grpc.caller import Caller
from runtime.grpc.method import Context
from runtime.grpc.unauthenticated import Cause, Unauthenticated
from runtime.process.settings import Settings
from runtime.process.start_error import InvalidSetting
from runtime.process.terminal import escape
from runtime.process.watched_files import WatchedFiles
from runtime.tls.peer import MAX_NAME_LENGTH, Peer, parse_peer

SETTING = "DIPTYCH_TLS_CALLERS"
_PEM = "x509_pem_cert"
"""gRPC's name of a client's certificate."""
_CACHE_SIZE = 10_000
"""Certificates that are parsed once."""

Table = Mapping[str, frozenset[str]]
"""The scopes of callers by their names."""


class TableEntry(NamedTuple):
    """An entry of the table, which identified a caller."""

    name: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class CertifiedCaller:
    """A caller, and the entry that identified it."""

    caller: Caller
    entry: TableEntry


class CertificateCallers:
    """Identifies callers by their certificates.

    Args:
        files: the file of the table.
    """

    def __init__(self, files: WatchedFiles[Table]) -> None:
        self.files = files
        self._parse = lru_cache(_CACHE_SIZE)(parse_peer)
        self._cache: dict[bytes, CertifiedCaller] = {}
        files.on_change.append(self._cache.clear)

    def identify(self, context: Context) -> CertifiedCaller:
        """Return the caller of a call.

        Raises:
            Unauthenticated: the client presented no certificate, or it has expired or is not in the table.
        """
        pem = next(iter(context.auth_context().get(_PEM, ())), None)
        if pem is None:
            text = (
                "the call has neither the metadata `authorization: Bearer <token>` nor a client certificate"
            )
            raise Unauthenticated(Cause.MISSING, text)
        identity = self._cache.get(pem)
        if identity is None:
            identity = self._find(pem)
            if len(self._cache) >= _CACHE_SIZE:
                del self._cache[next(iter(self._cache))]
            self._cache[pem] = identity
        if time.time() >= identity.caller.expires_at:
            text = "the client certificate has expired"
            raise Unauthenticated.of_certificate(Cause.CERTIFICATE_EXPIRED, text, identity.entry.name)
        return identity

    def has(self, entry: TableEntry) -> bool:
        """Return whether an entry is still in the table, unchanged."""
        return self.files.content.get(entry.name) == entry.scopes

    def _find(self, pem: bytes) -> CertifiedCaller:
        try:
            peer: Peer = self._parse(pem)
        except ValueError as error:
            text = f"the client certificate has no name: {error}"
            raise Unauthenticated(Cause.CERTIFICATE_INVALID, text) from error
        scopes = self.files.content.get(peer.name)
        if scopes is None:
            text = "the call has no token, and its client certificate is of no caller known here"
            raise Unauthenticated.of_certificate(Cause.CERTIFICATE_UNKNOWN, text, peer.name)
        caller = Caller(peer.name, scopes, expires_at=peer.expires_at)
        return CertifiedCaller(caller, TableEntry(peer.name, scopes))


def open_table(settings: Settings) -> CertificateCallers | None:
    """Return the callers of the setting `tls_callers`; None if it is empty.

    Raises:
        InvalidSetting: the file cannot be used, or no certificates are asked for.
    """
    if not settings.tls_callers:
        return None
    if settings.tls_client_certificates == "none":
        text = "is set, and DIPTYCH_TLS_CLIENT_CERTIFICATES is none: clients present no certificates"
        raise InvalidSetting(f"{SETTING}: {text}")
    return CertificateCallers(WatchedFiles(SETTING, [settings.tls_callers], parse_table))


def parse_table(content: bytes) -> Table:
    """Return a table: a JSON object with a list of scopes for each name.

    Raises:
        ValueError: it is none, or has a name twice.
    """
    pairs = json.loads(content, object_pairs_hook=tuple)
    if not isinstance(pairs, tuple):
        raise ValueError("is no JSON object")
    table: dict[str, frozenset[str]] = {}
    for name, scopes in pairs:
        shown = escape(name)[:MAX_NAME_LENGTH]
        if name in table:
            raise ValueError(f"has {shown} twice")
        if not 0 < len(name) <= MAX_NAME_LENGTH or not name.isprintable():
            raise ValueError(f"{shown} is not the name of a certificate")
        if not _are_scopes(scopes):
            raise ValueError(f"{shown} has no list of scopes")
        table[name] = frozenset(scopes)
    return table


def _are_scopes(scopes: Any) -> bool:
    return isinstance(scopes, list) and all(isinstance(each, str) and each.isprintable() for each in scopes)
