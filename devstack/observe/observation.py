"""The servers that `make observe` runs beside the local stack. A missing one is reported in one line."""

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from devstack.observe.alert_receiver import AlertReceiver
from devstack.observe.alertmanager import Alertmanager
from devstack.observe.programs import JAVA
from devstack.observe.prometheus import Prometheus, Target
from devstack.observe.trace_bridge import TraceBridge
from devstack.observe.zipkin import Zipkin, find_jar
from devstack.servers import Server
from devstack.stack import Stack
from devstack.tcp_ports import free_port, is_free
from runtime.process.start_error import StartError

PROMETHEUS_PORT = 9090
ALERTMANAGER_PORT = 9093
ZIPKIN_PORT = 9411
CACHE = Path(".cache/observe").absolute()

_OTHER_COLLECTOR = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_TRACES_EXPORTER",
)
"""Variables that send traces elsewhere; Zipkin is not started then."""


class Observation:
    """Prometheus, Alertmanager and Zipkin, as far as this machine has them.

    Args:
        folder: for their configuration, data and logs.
        print_line: prints a line for the user: an alert, or which part is missing.
    """

    def __init__(self, folder: Path, print_line: Callable[[str], None]) -> None:
        self.servers: list[Server] = []
        self._folder = folder
        self._print = print_line
        self._receiver = AlertReceiver(lambda alert: print_line(str(alert)))
        self._receiver.start()
        self._jar: Path | None = None
        self._zipkin_port = _choose_port(ZIPKIN_PORT)
        self._bridge = TraceBridge(free_port(), f"http://127.0.0.1:{self._zipkin_port}")

    async def find_traces(self) -> dict[str, str]:
        """Find Zipkin, downloaded if necessary; return the variables of the processes that it shows."""
        if any(map(os.environ.get, _OTHER_COLLECTOR)):
            self._print("Traces go where OTEL_* says, so Zipkin is not started")
            return {}
        try:
            JAVA.find()
            self._jar = await find_jar(CACHE, self._print)
        except StartError as error:
            self._print(str(error))
            return {}
        return self._bridge.environment

    async def start_traces(self, keep: Sequence[int] = ()) -> None:
        """Start Zipkin, if it was found."""
        if (jar := self._jar) is not None:
            await self._bridge.start()  # first: spans that Zipkin does not take yet are sent again
            await self._start(lambda: Zipkin(self._folder / "zipkin", jar, self._zipkin_port, keep))

    async def start_metrics(self, targets: Sequence[Target], keep: Sequence[int] = ()) -> None:
        """Start Alertmanager and Prometheus, or report what is missing.

        Args:
            targets: the processes to scrape, which serve already: one that does not is an alert.
            keep: file descriptors that the programs inherit.
        """
        folder, webhook = self._folder, self._receiver.url
        manager = await self._start(
            lambda: Alertmanager(folder / "alertmanager", webhook, _choose_port(ALERTMANAGER_PORT), keep)
        )
        address = f"127.0.0.1:{manager.port}" if manager else None
        await self._start(
            lambda: Prometheus(folder / "prometheus", targets, address, _choose_port(PROMETHEUS_PORT), keep)
        )

    async def stop_metrics(self) -> None:
        """Stop Prometheus and Alertmanager, for which a process that stops would be an alert."""
        servers = [server for server in self.servers if not isinstance(server, Zipkin)]
        await asyncio.gather(*(server.stop() for server in servers))

    async def stop(self) -> None:
        await self._bridge.stop()
        await asyncio.gather(*(server.stop() for server in self.servers))
        self._receiver.stop()

    async def _start(self, create: Callable[[], Server]) -> Server | None:
        """Start a part; report one that is missing or does not start."""
        server: Server | None = None
        try:
            server = create()
            self.servers.append(server)  # before it has started, so that Ctrl-C stops it
            await server.start()
        except StartError as error:
            self._print(str(error))
            if server is not None:
                self.servers.remove(server)
            return None
        return server


def list_targets(stack: Stack) -> list[Target]:
    """Return the processes of a stack, as Prometheus scrapes them."""
    return [
        Target(process.kind.name, process.name, process.metrics_address)
        for process in stack.processes
        if process.metrics_address
    ]


def _choose_port(preferred: int) -> int:
    """Return the port that people expect, or a free one if that is taken."""
    return preferred if is_free(preferred) else free_port()
