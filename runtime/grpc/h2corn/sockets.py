"""The sockets at which h2corn listens."""

import socket

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
