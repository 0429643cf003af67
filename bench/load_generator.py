"""The load generator: builds and runs a Go program (`bench/loadgen`) that sends serialised requests.

On a machine with few cores, the generator's CPU time is missing from the measured servers. Against the same
echo server ghz took 350 us of CPU per call and this program 100. `make load` uses ghz.
"""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from bench.comparison import InvalidRun

SOURCE = Path(__file__).with_name("loadgen")
INSTALL_HINT = "bench: the load generator needs Go 1.23 or later; install Go first"
CONNECTIONS = 4
OK = "0"


@dataclass(frozen=True)
class LoadResult:
    """The result of a run, as the program prints it; times are in milliseconds."""

    rate: float
    """Successful calls per second."""
    seconds: float
    statuses: Mapping[str, int]
    """The number of calls by gRPC status number."""
    with_details: int
    """Failed calls whose status had details."""
    unsent: int
    """Calls of an open loop that were not sent, since too many were in flight."""
    latency: Mapping[str, float]
    """Percentiles of successful calls: 50, 90, 95, 99, 99.9 and 100."""
    error_latency: Mapping[str, float]
    """The same percentiles of failed calls."""
    timeline: Sequence[Mapping[str, float]]
    """By second: successful and failed calls, and the 99th percentile of the successful ones."""
    mixed: "LoadResult | None" = None
    """Of the calls of the other method alone, if there was one; all other fields count both."""

    @property
    def ok(self) -> int:
        """The number of successful calls."""
        return self.statuses.get(OK, 0)


@dataclass(frozen=True)
class Mixed:
    """A command that a closed loop calls in turn with the first method; its calls get new request ids."""

    address: str
    method: str
    requests_file: Path
    every: int
    """Every call of this number is one of this method."""

    def to_arguments(self) -> list[str]:
        return [
            f"-mixed-address={self.address}",
            f"-mixed-method={self.method}",
            f"-mixed-requests={self.requests_file}",
            f"-mixed-every={self.every}",
            "-mixed-fresh-ids",
        ]


def write_requests(path: Path, requests: Iterable[Message]) -> int:
    """Write a file of requests, each after its length (a varint); return the number of requests."""
    count = 0
    with path.open("wb") as file:
        for request in requests:
            content = request.SerializeToString()
            file.write(_encode_varint(len(content)) + content)
            count += 1
    return count


def _encode_varint(number: int) -> bytes:
    low, high = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _encode_varint(high) if high else bytes([low])


@asynccontextmanager
async def keep_sending(
    send: Callable[[asyncio.Event], Coroutine[Any, Any, LoadResult]], early_end: str
) -> AsyncIterator["asyncio.Task[LoadResult]"]:
    """Send beside the work of the context; the task that is yielded has the result afterwards.

    Args:
        send: takes the event at which it has to end.
        early_end: the error of a sending that ends before.

    Raises:
        InvalidRun: it has ended before.
    """
    stop = asyncio.Event()
    sending = asyncio.create_task(send(stop))
    try:
        yield sending
        if sending.done():
            raise InvalidRun(early_end)
    finally:
        stop.set()
        await sending


class LoadGenerator:
    """The compiled program; created by `build`."""

    def __init__(self, program: Path) -> None:
        self._program = program

    @classmethod
    async def build(cls, folder: Path) -> "LoadGenerator":
        """Compile the program into a folder.

        Raises:
            RuntimeError: Go is not installed, or the compilation failed.
        """
        go = shutil.which("go")
        if go is None:
            raise RuntimeError(INSTALL_HINT)
        program = folder / "loadgen"
        await _run_program(go, "build", "-C", str(SOURCE), "-o", str(program), ".")
        return cls(program)

    async def run(
        self,
        address: str,
        method: str,
        requests_file: Path,
        *,
        token: str,
        count: int = 0,
        seconds: float = 0.0,
        in_flight: int = 64,
        rate: float = 0.0,
        deadline: float = 0.0,
        fresh_ids: bool = False,
        connections: int = CONNECTIONS,
        mixed: Mixed | None = None,
        authority: Path | None = None,
        cores: Collection[int] | None = None,
        stop: asyncio.Event | None = None,
    ) -> LoadResult:
        """Send requests and return the result.

        Args:
            address: of the server.
            method: its path, `/<package>.<Service>/<Method>`.
            requests_file: a file of `write_requests`; its requests are sent in turn, repeatedly.
            token: the caller's access token.
            count: the number of calls; 0 for as many as fit into `seconds`.
            seconds: the duration; 0 for no limit.
            in_flight: the number of concurrent calls; with a `rate`, their maximum.
            rate: calls per second, independent of responses (an open loop); 0 for a closed loop.
            deadline: seconds per call; 0 for none.
            fresh_ids: whether each call gets a request id of its own; for commands.
            connections: the number of HTTP/2 connections, to each server.
            mixed: another method that is called, too.
            authority: the file with the authority of the server; None for a server without TLS.
            cores: those on which the program runs; None for all.
            stop: ends the calls once it is set, if that is earlier.

        Raises:
            RuntimeError: the server is unreachable, or closed a connection.
        """
        output = await _run_program(
            str(self._program),
            f"-address={address}",
            f"-method={method}",
            f"-requests={requests_file}",
            f"-metadata=authorization: Bearer {token}",
            f"-count={count}",
            f"-seconds={seconds}s",
            f"-in-flight={in_flight}",
            f"-rate={rate}",
            f"-deadline={deadline}s",
            f"-fresh-ids={str(fresh_ids).lower()}",
            f"-connections={min(connections, in_flight)}",
            *(mixed.to_arguments() if mixed else ()),
            *([f"-ca={authority}"] if authority else []),
            cores=cores,
            stop=stop,
        )
        report = json.loads(output)
        other = report.pop("mixed", None)
        return LoadResult(**report, mixed=LoadResult(**other) if other else None)


async def _run_program(
    *command: str, cores: Collection[int] | None = None, stop: asyncio.Event | None = None
) -> bytes:
    """Return a program's output.

    Raises:
        RuntimeError: it failed; the message is its error output.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=None if cores is None else partial(os.sched_setaffinity, 0, cores),
    )
    stopping = asyncio.create_task(_stop_program(process, stop or asyncio.Event()))
    try:
        out, error = await process.communicate()
    finally:
        stopping.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(error.decode().strip() or f"{command[0]} failed")
    return out


async def _stop_program(process: asyncio.subprocess.Process, stop: asyncio.Event) -> None:
    await stop.wait()
    process.terminate()
