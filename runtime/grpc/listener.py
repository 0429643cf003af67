"""What takes the calls of a gRPC server: grpc.aio or h2corn, by the setting `DIPTYCH_GRPC_SERVER`.

Both hand calls to the same routes with the same contexts, so handlers and interceptors do not know which one
took a call. docs/security.md compares them.
"""

from collections.abc import Sequence
from typing import Protocol

from runtime.grpc.health import Health
from runtime.grpc.routes import Routes
from runtime.grpc.validation import MAX_REQUEST_BYTES
from runtime.process.settings import Settings
from runtime.process.start_error import StartError
from runtime.tls.server_tls import ServerTls

MAX_RECEIVED_BYTES = 2 * MAX_REQUEST_BYTES
"""Bytes of a request above which it is refused while it arrives. Requests that are too large, but smaller
than this, are refused by `validation`."""


class Listener(Protocol):
    """Takes calls at one address, those of routes and of the public services: health and reflection."""

    async def start(self) -> int:
        """Listen, and return the port.

        Raises:
            StartError: the address is in use, or does not belong to this machine.
        """

    async def wait_failed(self) -> None:
        """Return when the listener is stopped.

        Raises:
            Exception: it has ended by itself.
        """

    async def stop(self, grace: float) -> None:
        """Take no more calls, and give those in progress `grace` seconds to finish."""


def create_listener(
    settings: Settings,
    address: str,
    routes: Routes,
    health: Health,
    names: Sequence[str],
    max_pending: int,
    tls: ServerTls | None = None,
) -> Listener:
    """Return a listener that does not listen yet.

    Args:
        settings: the process's settings.
        address: `host:port`; port 0 for any free port.
        routes: of the calls.
        health: of the server.
        names: the services that reflection describes, if the settings permit it.
        max_pending: number of calls waiting to be handed over from which grpc.aio sheds some new calls.
        tls: of the address; None for plaintext.

    Raises:
        StartError: the package of the chosen server is not installed.
    """
    # Imported here, because a process needs one of them, and h2corn is an extra.
    if settings.grpc_server == "grpc.aio":
        from runtime.grpc.aio.listener import AioListener

        return AioListener(settings, address, routes, health, names, max_pending, tls)
    try:
        from runtime.grpc.h2corn.listener import H2cornListener
    except ModuleNotFoundError as error:
        text = "DIPTYCH_GRPC_SERVER: h2corn is not installed; the extra `diptych[h2corn]` has it"
        raise StartError(text) from error
    return H2cornListener(settings, address, routes, health, names, tls)
