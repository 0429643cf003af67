"""A toy server as a process of its own, which tests start, call and signal, and whose log they read."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import Process, create_subprocess_exec
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from devstack.tcp_ports import free_port
from tests.support.harness.callers import METADATA, Issuer
from tests.support.harness.forked_process import start_python
from tests.support.ledger.installation import ENVIRONMENT
from tests.support.ledger.stubs import queries, queries_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Toy:
    """A toy server process, and a connection to it."""

    def __init__(
        self, process: Process, folder: Path, address: str, channel: grpc.aio.Channel, issuer: Issuer
    ) -> None:
        self.process = process
        self.folder = folder
        self.address = address
        self.health: Any = health_pb2_grpc.HealthStub(channel)
        self.queries: Any = queries_grpc.QueryServiceStub(channel)
        self.metadata = issuer.bearer()
        self._issuer = issuer

    @asynccontextmanager
    async def reconnected(self, subject: str = "") -> AsyncIterator["Toy"]:
        """Open another connection to the same process, perhaps of another caller."""
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.insecure_channel(self.address, options=options) as channel:
            other = Toy(self.process, self.folder, self.address, channel, self._issuer)
            if subject:
                other.metadata = self._issuer.bearer(sub=subject)
            yield other

    async def get(self, cheque_id: str, metadata: METADATA = (), seconds: float | None = None) -> Any:
        request = queries.GetChequeRequest(cheque_id=cheque_id)
        all_metadata = (*self.metadata, *metadata)
        response = await self.queries.GetCheque(request, metadata=all_metadata, timeout=seconds)
        return response.cheque

    async def wait_serving(self) -> None:
        """Wait until the server is SERVING."""
        await self.health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=60)
        async for response in self.health.Watch(health_pb2.HealthCheckRequest(), timeout=60):
            if response.status == SERVING:
                return

    async def wait_ended(self, seconds: float = 60.0) -> int:
        """Wait until the process has ended; return its exit code."""
        async with asyncio.timeout(seconds):
            return await self.process.wait()

    def lines(self) -> list[dict[str, Any]]:
        """Return the log lines so far."""
        return [json.loads(line) for line in (self.folder / "stdout").read_text().splitlines()]

    async def line(self, message: str, seconds: float = 10.0) -> dict[str, Any]:
        """Wait for the only line with this message; the server writes lines with a short delay."""
        async with asyncio.timeout(seconds):
            while not (lines := [line for line in self.lines() if line["message"] == message]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        (line,) = lines
        return line

    def messages(self) -> list[str]:
        return [line["message"] for line in self.lines()]

    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()


@asynccontextmanager
async def toy_process(
    folder: Path,
    *arguments: str,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
    redirection: str = "",
    descriptors: int = 0,
) -> AsyncIterator[Toy]:
    """Start a toy server without waiting until it serves; kill it at the end if it still runs.

    Args:
        folder: for its keys and output.
        arguments: of its command line.
        port: where it listens; None for a free one.
        environment: further variables.
        redirection: of a shell, for instance `>&-`; empty for the files `stdout` and `stderr` in the folder.
        descriptors: that the process may have open; 0 for as many as this one.
    """
    issuer = Issuer(folder / "jwks.json")
    address = f"127.0.0.1:{port or free_port()}"
    settings = {"DIPTYCH_JWKS": str(issuer.path), "DIPTYCH_QUERY_ADDRESS": address}
    settings["PYTHONPATH"] = ENVIRONMENT["PYTHONPATH"]  # the generated stubs
    module = ("-m", "tests.support.harness.toy_server", *arguments)
    variables = {**os.environ, **settings, **(environment or {})}
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        if redirection or descriptors:
            limit = f"ulimit -n {descriptors}; " if descriptors else ""
            shell = ("sh", "-c", f'{limit}exec "$@" {redirection}', "sh", sys.executable, *module)
            process = await create_subprocess_exec(*shell, env=variables, stdout=stdout, stderr=stderr)
        else:
            process = await start_python(
                *module, environment=variables, stdout=stdout.fileno(), stderr=stderr.fileno()
            )
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield Toy(process, folder, address, channel, issuer)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
