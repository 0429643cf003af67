"""The sockets at which h2corn listens, and those of its connections."""

import os
import socket
from contextlib import suppress
from pathlib import Path

from runtime.grpc.addresses import bind, explained

BACKLOG = 1_024
KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 90_000}
"""Clients that vanished are noticed by TCP within 90 seconds, since h2corn sends no pings. Connections
inherit these options from the socket that listens."""


def open_socket(address: str, reuse_port: bool) -> socket.socket:
    """Return a socket that listens at `host:port`.

    Raises:
        StartError: the address is in use, or does not belong to this machine.
    """
    options = {"SO_KEEPALIVE": 1} | ({"SO_REUSEPORT": 1} if reuse_port else {})
    listening = bind(address, **options)
    with explained(address):
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):  # Linux has them all
                listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        listening.listen(BACKLOG)
    listening.setblocking(False)
    return listening


def shut_down_connections(port: int) -> None:
    """Shut down the connections that this process has accepted at a port; h2corn finds them at their end."""
    for entry in Path("/dev/fd").iterdir():
        with suppress(OSError):  # no socket, or closed by now
            _shut_down(int(entry.name), port)


def _shut_down(descriptor: int, port: int) -> None:
    # A copy, because h2corn may close the descriptor at any time, and another file may get its number.
    copy = os.dup(descriptor)
    try:
        connection = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
    with connection:
        is_internet = connection.family in (socket.AF_INET, socket.AF_INET6)
        if is_internet and connection.getsockname()[1] == port:
            connection.shutdown(socket.SHUT_RDWR)
