"""The certificates of an h2corn: those that were checked, not what its files hold by now.

h2corn reads its files when it starts. A file may have become unusable since it was checked, so the content
comes from memory instead, by a replaced function of h2corn.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import h2corn._server
from h2corn._server import TlsMaterial

from runtime.tls.server_tls import ServerTls

_PRESENTED: ContextVar[TlsMaterial | None] = ContextVar("presented", default=None)
_IN_MEMORY = "in-memory"
"""Stands for files in the settings of h2corn, which only says with them that there is TLS."""

_library: Any = h2corn._server
_library.load_tls_material = lambda _: _PRESENTED.get()


@contextmanager
def present(tls: ServerTls | None) -> Iterator[None]:
    """Let each h2corn whose task begins within use the present certificates."""
    token = _PRESENTED.set(_read_material(tls) if tls else None)
    try:
        yield
    finally:
        _PRESENTED.reset(token)


def _read_material(tls: ServerTls) -> TlsMaterial:
    current = tls.files.content
    return TlsMaterial(current.own.certificate, current.own.key, current.client_authorities or None)


def describe_tls(tls: ServerTls) -> dict[str, Any]:
    """Return the settings of h2corn that turn TLS on."""
    described: dict[str, Any] = {"certfile": _IN_MEMORY, "keyfile": _IN_MEMORY}
    if tls.client_certificates != "none":
        described |= {"ca_certs": _IN_MEMORY, "cert_reqs": tls.client_certificates}
    return described
