"""The readiness check of this machine's clock against that of a server that all processes share.

Nothing that a process decides for good depends on its own clock. Access tokens, log lines, traces and lags
do, so a process with a wrong clock is not ready.
"""

from collections.abc import Awaitable, Callable
from time import monotonic, time

from runtime.grpc.health import NotReady
from runtime.telemetry import metrics

MAX_OFFSET = 1.0
"""Seconds by which the clocks may differ."""


async def check_clock(server: str, read_time: Callable[[], Awaitable[float]]) -> None:
    """Compare this machine's clock with a server's, whose answer may be of any moment of the round trip.

    Args:
        server: its name, for the error.
        read_time: asks for the server's time, in seconds since 1970.

    Raises:
        NotReady: the clocks certainly differ by more than MAX_OFFSET.
        Exception: the server does not answer.
    """
    start = monotonic()
    try:
        server_time = await read_time()
    except BaseException:
        metrics.CLOCK_OFFSET.unset()  # the last one may be long ago
        raise
    tolerance = (monotonic() - start) / 2
    offset = time() - tolerance - server_time
    metrics.CLOCK_OFFSET.set(round(offset * 1000))
    if abs(offset) - tolerance > MAX_OFFSET:
        direction = "ahead of" if offset > 0 else "behind"
        raise NotReady(f"the clock is {abs(offset):.1f} s {direction} that of {server}")
