"""Addresses to listen at."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.process.start_error import StartError


def bind(address: str, **options: int) -> socket.socket:
    """Return a socket that is bound to `host:port`.

    Args:
        address: the address.
        options: of the socket, for instance `SO_REUSEPORT=1`.

    Raises:
        StartError: the address is in use, or does not belong to this machine.
    """
    host, _, port = address.rpartition(":")
    with explained(address):
        if not 0 <= int(port) < 65536:
            raise ValueError(f"{port} is not a port")
        found = socket.getaddrinfo(host.strip("[]") or None, port, type=socket.SOCK_STREAM)
        family, kind, _, _, socket_address = found[0]
        bound = socket.socket(family, kind)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            for name, value in options.items():
                bound.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
            bound.bind(socket_address)
        except OSError:
            bound.close()
            raise
        return bound


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Turn errors of a socket into StartErrors."""
    try:
        yield
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else str(error)
        raise StartError(f"cannot listen on {address}: {cause}") from error


def check_address_free(address: str) -> None:
    """Check that an address can be bound. gRPC's own error is hidden between many other lines on stderr.

    Raises:
        StartError: the address is in use, or does not belong to this machine.
    """
    bind(address).close()
