"""The standard gRPC health service: SERVING while a probe, run once a second, succeeds."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from runtime.grpc.method import Context
from runtime.process import logs
from runtime.process.logs.repeated_errors import describe_error

log = logs.get_logger(__name__)

Probe = Callable[[], Awaitable[bool]]
"""Returns whether the process can do its work; an exception counts as False."""

REASON_KEY = "diptych-not-serving"
"""Trailing metadata of a check that answers NOT_SERVING: the text of a `NotReady`."""

_PROBE_INTERVAL = 1.0
_PROBE_TIMEOUT = 2.0
"""Seconds after which a probe counts as failed."""


MIN_FAILURES = 2
"""Failed probes after which a process that has not served yet says why."""
_NUMBERS = re.compile(r"0x[0-9a-f]+|[0-9]+(\.[0-9]+)?")
"""Parts in which two equal reasons differ, such as the offset of a clock."""

LIVENESS = "liveness"
"""The name under which a process is SERVING whatever it lacks: it answers as long as its event loop turns."""


class NotReady(Exception):
    """The process must not be used. The text, in ASCII, is for everyone who may check the health."""


class Health(health_pb2_grpc.HealthServicer):
    """The health of a server; all its services but `liveness` share one status.

    This is our own implementation because the watches of grpcio-health-checking never end. A stopping server
    would wait for them, as for any call in progress, until `stop_grace` is over.
    """

    def __init__(self, services: Collection[str] = ()) -> None:
        self._names = {"", LIVENESS, *services}
        self._serving = False
        self._stopped = False
        self._reason = ""
        """The text of the last `NotReady`; empty while serving, and for other causes."""
        self._failures = 0
        """Failed probes since the last one that succeeded."""
        self._logged = ""
        """The last reason that was logged; empty while serving."""
        self._changed = asyncio.Event()
        """Set at the next change, and then replaced by another event."""

    async def run_probe(self, probe: Probe, stopping: asyncio.Event) -> None:
        """Set the status to the result of the probe once a second, until the process stops."""
        while not stopping.is_set():
            await self._run_once(probe)
            try:
                await asyncio.wait_for(stopping.wait(), _PROBE_INTERVAL)
            except TimeoutError:
                continue

    async def _run_once(self, probe: Probe) -> None:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT):
                self.set_serving(await probe())
        except NotReady as error:
            self.set_serving(False, str(error))
        except Exception as error:
            self.set_serving(False, error=describe_error(error))

    def set_serving(self, serving: bool, reason: str = "", error: str = "") -> None:
        """Change the status, and notify watchers. Has no effect after `stop`.

        Args:
            serving: whether the process can do its work.
            reason: why not, for everyone who may check the health.
            error: why not, for the log.
        """
        self._reason = reason
        if self._stopped:
            return
        self._failures = 0 if serving else self._failures + 1
        if not serving:
            self._log_failure(reason or error or "the probe failed")
        elif not self._serving:
            self._logged = ""
            log.info("Serving")
        if serving != self._serving:
            self._serving = serving
            self._notify()

    def _log_failure(self, reason: str) -> None:
        """Log why the process does not serve, once for each reason; a process that starts gets a second."""
        kind = _NUMBERS.sub("0", reason)
        if kind != self._logged and (self._serving or self._failures >= MIN_FAILURES):
            self._logged = kind
            log.warning("Not serving", error=reason)

    def stop(self) -> None:
        """Change the status to NOT_SERVING permanently, and end all watches."""
        self._serving, self._stopped = False, True
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _build_response(self, service: str) -> HealthCheckResponse:
        if service not in self._names:
            return HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        serving = self._serving or service == LIVENESS
        status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
        return HealthCheckResponse(status=status)

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:  # noqa: N802
        if request.service not in self._names:
            await context.abort(StatusCode.NOT_FOUND, "unknown service")
        if self._reason:
            context.set_trailing_metadata(((REASON_KEY, self._reason),))
        return self._build_response(request.service)

    async def List(self, request: Any, context: Context) -> Any:  # noqa: N802
        statuses = {name: self._build_response(name) for name in self._names}
        return health_pb2.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined] # the stub is older

    async def Watch(  # noqa: N802
        self, request: HealthCheckRequest, context: Context
    ) -> AsyncIterator[HealthCheckResponse]:
        """Yield the status now and after every change, until the server stops."""
        while True:
            # Taken before the response: a change while it is sent is neither missed nor taken for sent.
            changed, is_last = self._changed, self._stopped
            yield self._build_response(request.service)
            if is_last:
                return
            await changed.wait()
