"""TCP ports of this machine: a free one, and whether one is."""

import random
import socket

_BELOW_EPHEMERAL = range(20_000, 32_768)
"""Where to look: outgoing connections get higher ports, so a server can be restarted on its own."""
_GIVEN: set[int] = set()


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
    """Return a port that is free now and that this process has not been given before."""
    # The system's generator: tests that seed the global one shall not meet on one port.
    choose = random.SystemRandom()
    while (port := choose.choice(_BELOW_EPHEMERAL)) in _GIVEN or not is_free(port):
        pass
    _GIVEN.add(port)
    return port
