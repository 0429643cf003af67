"""The load generator, written in Go so that it costs little: it plays requests that were serialised before.

Of ghz and the player, each answered by the same echo, ghz took 350 us of CPU for a call and the player 100:
on a machine of few cores what is left to the servers decides what is measured. `make load` is for ghz.
"""

import asyncio
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message

SOURCE = Path(__file__).with_name("loadgen")
INSTALL = "bench: the load generator needs Go 1.23 or later; install Go first"
CONNECTIONS = 4
OK = "0"


@dataclass(frozen=True)
class Played:
    """How calls were answered; times are in milliseconds."""

    rate: float
    """Calls a second that were answered OK."""
    seconds: float
    statuses: Mapping[str, int]
    """How many calls were answered so, by the number of their gRPC status."""
    detailed: int
    """How many of those that were not OK carried details."""
    unsent: int
    latency: Mapping[str, float]
    """Percentiles of the answers that were OK: 50, 90, 95, 99, 99.9 and 100."""
    refusal: Mapping[str, float]
    """The same of all others."""
    timeline: Sequence[Mapping[str, float]]
    """By second: how many were OK and how many refused, and the 99th percentile of those OK."""

    @property
    def ok(self) -> int:
        """How many calls were answered OK."""
        return self.statuses.get(OK, 0)


def write_requests(path: Path, requests: Iterable[Message]) -> int:
    """Write requests as the player and ghz read them, each behind its length; return how many."""
    count = 0
    with path.open("wb") as file:
        for request in requests:
            content = request.SerializeToString()
            file.write(_varint(len(content)) + content)
            count += 1
    return count


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


class Player:
    """The load generator's program; made by `build`."""

    def __init__(self, program: Path) -> None:
        self._program = program

    @classmethod
    async def build(cls, folder: Path) -> "Player":
        """Compile it.

        Raises:
            RuntimeError: there is no Go, or it does not compile.
        """
        go = shutil.which("go")
        if go is None:
            raise RuntimeError(INSTALL)
        program = folder / "player"
        await _output(go, "build", "-C", str(SOURCE), "-o", str(program), ".")
        return cls(program)

    async def play(
        self,
        address: str,
        method: str,
        requests: Path,
        *,
        token: str,
        count: int = 0,
        seconds: float = 0.0,
        in_flight: int = 64,
        rate: float = 0.0,
        deadline: float = 0.0,
        connections: int = CONNECTIONS,
    ) -> Played:
        """Send requests, and return how they were answered.

        Args:
            address: of the server.
            method: its path, `/<package>.<Service>/<Method>`.
            requests: what `write_requests` wrote, played in turn.
            token: the caller's.
            count: how many calls; 0 for as many as fit in `seconds`.
            seconds: how long to send.
            in_flight: calls under way, always; with a `rate`, at most.
            rate: calls a second, whatever the answers do (an open loop).
            deadline: seconds that each call has; 0 for any time.
            connections: how many.

        Raises:
            RuntimeError: the server could not be reached, or hung up.
        """
        return Played(
            **json.loads(
                await _output(
                    str(self._program),
                    f"-address={address}",
                    f"-method={method}",
                    f"-requests={requests}",
                    f"-metadata=authorization: Bearer {token}",
                    f"-count={count}",
                    f"-seconds={seconds}s",
                    f"-in-flight={in_flight}",
                    f"-rate={rate}",
                    f"-deadline={deadline}s",
                    f"-connections={min(connections, in_flight)}",
                )
            )
        )


async def _output(*command: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, error = await process.communicate()
    if process.returncode:
        raise RuntimeError(error.decode().strip() or f"{command[0]} failed")
    return out
