"""Free TCP ports of this machine."""

import random
import socket

_BELOW_EPHEMERAL = range(20_000, 32_768)
"""Outgoing connections get higher ports, so a restarted server finds its port free."""
_ASSIGNED: set[int] = set()


def is_free(port: int) -> bool:
    """Return whether a server could listen at 127.0.0.1 on this port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port that is free now and that this function has not returned before."""
    # The system's generator: tests that seed the global one must not choose the same ports.
    generator = random.SystemRandom()
    while (port := generator.choice(_BELOW_EPHEMERAL)) in _ASSIGNED or not is_free(port):
        pass
    _ASSIGNED.add(port)
    return port
