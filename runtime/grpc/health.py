"""Standard gRPC health: SERVING while the process has what it needs to do its job, asked once a second."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection

from grpc import StatusCode
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from runtime.grpc.method import Context
from runtime.process import logs

log = logs.get_logger(__name__)

Probe = Callable[[], Awaitable[bool]]
"""Tells whether the process can do its job; an exception is a no."""

_INTERVAL = 1.0
_PATIENCE = 2.0
"""Seconds that a probe may take; longer is a no."""


class Health(health_pb2_grpc.HealthServicer):
    """The health of a server and each of its services, which stand and fall together.

    Written here rather than taken from grpcio-health-checking, whose watchers never end: a server that stops
    would wait for them as for any other call under way, until its grace is over.
    """

    def __init__(self, services: Collection[str] = ()) -> None:
        self._names = {"", *services}
        self._serving = False
        self._stopped = False
        self._changed = asyncio.Event()

    async def follow(self, probe: Probe, stopping: asyncio.Event) -> None:
        """Be what the probe says, once a second, until the process stops."""
        while not stopping.is_set():
            self.set(await _ask(probe))
            try:
                await asyncio.wait_for(stopping.wait(), _INTERVAL)
            except TimeoutError:
                continue

    def set(self, serving: bool) -> None:
        """Answer like this from now on, and tell those who watch."""
        if serving != self._serving and not self._stopped:
            log.info("Serving") if serving else log.warning("Not serving")
            self._serving = serving
            self._tell()

    def stop(self) -> None:
        """Be NOT_SERVING for good, and let those who watch go."""
        self._serving, self._stopped = False, True
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _answer(self, known: bool) -> HealthCheckResponse:
        if not known:
            return HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        serving = HealthCheckResponse.SERVING if self._serving else HealthCheckResponse.NOT_SERVING
        return HealthCheckResponse(status=serving)

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:  # noqa: N802
        """Answer how a service is; NOT_FOUND for one that is not here."""
        if request.service not in self._names:
            await context.abort(StatusCode.NOT_FOUND, "unknown service")
        return self._answer(True)

    async def Watch(  # noqa: N802
        self, request: HealthCheckRequest, context: Context
    ) -> AsyncIterator[HealthCheckResponse]:
        """Answer how a service is, and again whenever that changes, until the server stops."""
        while True:
            changed = self._changed
            yield self._answer(request.service in self._names)
            if self._stopped:
                return
            await changed.wait()


async def _ask(probe: Probe) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await probe()
    except Exception as error:
        log.debug("The probe failed", error=repr(error))
        return False
