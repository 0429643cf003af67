"""The whole system on one machine: its servers, the migrated database, and its processes.

`devstack.stack_kinds` creates them: the local stack of `make up`, and temporary ones for tests, demo and
bench.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Self

import grpc

from devstack import tokens
from devstack.child import Output
from devstack.processes import Process
from devstack.servers import Server
from devstack.tcp_ports import free_port, is_free
from operations import projections
from operations.migrate import migrate
from operations.processes import KINDS, PROJECTOR, ProcessKind
from runtime.process.settings import Settings
from runtime.process.start_error import StartError
from runtime.tls.channel_credentials import read_credentials


class Stack:
    """Servers and processes that start and stop together; each can be killed and restarted on its own.

    Args:
        settings: of all processes.
        servers: the servers to start, by the setting with their URL; the others run already.
        environment: further variables for all processes; they take precedence over the settings.
        output: returns the receiver of the lines of the process with this name.
        keep: file descriptors that the processes inherit.
        metrics: whether the processes serve their metrics at free ports, if the settings name none.
        kind_environment: variables of each kind of process alone; they take precedence over the settings,
            `environment` over them. The stack itself, and the tools that use `settings`, do not have them.
    """

    def __init__(
        self,
        settings: Settings,
        servers: Mapping[str, Server],
        environment: Mapping[str, str],
        output: Callable[[str], Output],
        keep: Sequence[int] = (),
        metrics: bool = False,
        kind_environment: Mapping[ProcessKind, Mapping[str, str]] | None = None,
    ) -> None:
        self.settings = settings
        self.servers = servers
        self.processes: list[Process] = []
        self._environment = environment
        self._kind_environment = kind_environment or {}
        self._output = output
        self.keep = keep
        self._metrics = metrics
        self._counts: Counter[str] = Counter()
        self.write_tokens: Callable[[], None] = lambda: None
        """Renews the tokens in the files of this stack, if they have to be."""
        self.make_database_users: Callable[[], Awaitable[object]] | None = None
        """Makes the database users of the processes, once the database is migrated."""

    def add(
        self, kind: ProcessKind, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> Process:
        """Add a process; its own `start` or the stack's starts it.

        Args:
            kind: the first process of a kind listens at the address of the settings.
            arguments: of its command line, for instance `--workers 2`.
            environment: variables of this process alone.
        """
        number = self._counts[kind.name] = self._counts[kind.name] + 1
        process = Process(
            kind,
            name := kind.name if number == 1 else f"{kind.name}-{number}",
            getattr(self.settings, kind.address) if number == 1 else f"127.0.0.1:{free_port()}",
            {
                **os.environ,
                **variables(self.settings),
                **self._kind_environment.get(kind, {}),
                **self._environment,
                **(environment or {}),
            },
            self._output(name),
            arguments,
            self.keep,
            self._metrics_address(),
        )
        self.processes.append(process)
        return process

    def _metrics_address(self) -> str:
        """Return the address for scrapes of the next process; empty if there is none."""
        if self.settings.metrics_address:
            host, _, port = self.settings.metrics_address.rpartition(":")
            return f"{host}:{int(port) + len(self.processes) if int(port) else 0}"
        return f"127.0.0.1:{free_port()}" if self._metrics else ""

    def of(self, kind: ProcessKind) -> list[Process]:
        return [process for process in self.processes if process.kind is kind]

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        """The credentials of calls to its processes; None for calls without TLS."""
        return read_credentials(variables(self.settings))

    def token(
        self,
        *scopes: str,
        subject: str = "alice",
        lifetime: timedelta = timedelta(hours=1),
        on_behalf_of: str | None = None,
    ) -> str:
        """Return an access token for the stack's processes."""
        return tokens.mint(self.settings, scopes, subject, lifetime, on_behalf_of)

    async def start(self) -> None:
        """Start everything and wait until it serves; after a failure nothing keeps running.

        Raises:
            StartError: a port is taken, or something does not start.
        """
        self._check_ports()
        try:
            await _run_all(server.start() for server in self.servers.values())
            await migrate(self.settings.database_url)
            if self.make_database_users is not None:
                await self.make_database_users()
            await _run_all(process.start() for process in self.processes)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop everything: first the processes that callers use, last the servers."""
        for kind in KINDS:
            await _run_all(process.stop() for process in self.of(kind))
        await _run_all(server.stop() for server in self.servers.values())

    async def __aenter__(self) -> Self:
        """Start, and wait until queries are answered if the stack has projectors."""
        await self.start()
        try:
            if self.of(PROJECTOR):
                await projections.wait_until_ready(self.settings)
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _check_ports(self) -> None:
        """Check all ports before anything starts.

        Raises:
            StartError: a port is taken; the message names the setting to change.
        """
        for setting, server in self.servers.items():
            if not is_free(server.port):
                advice = f"free it, or set {variable(setting)} to a server of your own"
                raise StartError(f"port {server.port}, for {server.name}, is taken: {advice}")
        for process in self.processes:
            process.check_port()


def variable(setting: str) -> str:
    """Return the environment variable of a setting."""
    return f"DIPTYCH_{setting.upper()}"


def variables(settings: Settings) -> dict[str, str]:
    """Return the settings as environment variables."""
    return {variable(name): str(value) for name, value in settings.model_dump().items()}


async def _run_all(steps: Iterable[Awaitable[object]]) -> None:
    """Run steps concurrently; raise the first failure after all have ended."""
    for outcome in await asyncio.gather(*steps, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
