"""A `bench.echo` server as a child process."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from sys import executable

import grpc

from devstack.child import Child
from devstack.tcp_ports import free_port


@asynccontextmanager
async def run_echo(folder: Path, responses: Mapping[str, bytes]) -> AsyncIterator[tuple[str, int]]:
    """Run a `bench.echo` server with the response of each method; yield its address and process id."""
    arguments = []
    for number, (method, response) in enumerate(responses.items()):
        file = folder / f"response-{number}-{id(responses)}"
        file.write_bytes(response)
        arguments.append(f"{method}={file}")
    address = f"127.0.0.1:{free_port()}"
    child = Child("echo", [executable, "-m", "bench.echo", address, *arguments], folder / "echo.log")
    await child.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            await asyncio.wait_for(channel.channel_ready(), 30)
        yield address, child.process.pid
    finally:
        await child.stop()
