"""The load: ghz with prepared requests, so that it only sends bytes and every request is another."""

import asyncio
import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message

IN_FLIGHT = 64
CONNECTIONS = 8
INSTALL = "bench: ghz is missing; `make tools` installs it (with Go), or put one on the PATH"


@dataclass(frozen=True, slots=True)
class Result:
    """How a method did under load."""

    rate: float
    """Answers per second."""
    median: float
    """Milliseconds."""
    p99: float
    """Milliseconds."""
    ok: int
    refused: dict[str, int]
    """Answers other than OK, by status."""


def find_ghz() -> str | None:
    """Return where ghz is; None where it is not."""
    return shutil.which("ghz") or shutil.which(Path(sys.executable).with_name("ghz"))


def write_requests(path: Path, requests: Iterable[Message]) -> int:
    """Write requests as ghz reads them, each behind its length; return how many."""
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


def write_descriptors(path: Path, files: Sequence[Any]) -> None:
    """Write the descriptors of these Protobuf files and all that they import."""
    known: dict[str, FileDescriptorProto] = {}

    def add(file: Any) -> None:
        if file.name not in known:
            for dependency in file.dependencies:
                add(dependency)
            known[file.name] = FileDescriptorProto.FromString(file.serialized_pb)

    for file in files:
        add(file)
    path.write_bytes(FileDescriptorSet(file=known.values()).SerializeToString())


@dataclass(frozen=True)
class Ghz:
    """A load generator for methods of these descriptors."""

    program: str
    descriptors: Path
    token: str

    async def run(self, address: str, method: str, requests: Path, count: int) -> Result:
        """Send so many requests, 64 in flight, and return how they were answered.

        Args:
            address: of the server.
            method: its path, `/<package>.<Service>/<Method>`.
            requests: what `write_requests` wrote; used in turn.
            count: how many.

        Raises:
            RuntimeError: ghz failed.
        """
        process = await asyncio.create_subprocess_exec(
            self.program,
            "--insecure",
            f"--protoset={self.descriptors}",
            f"--call={method.strip('/')}",
            f"--binary-file={requests}",
            f"--metadata={json.dumps({'authorization': f'Bearer {self.token}'})}",
            f"--total={count}",
            f"--concurrency={IN_FLIGHT}",
            f"--connections={CONNECTIONS}",
            "--disable-template-functions",
            "--disable-template-data",
            "--format=json",
            address,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"ghz: {error.decode() or out.decode()}")
        return _result(json.loads(out))


def _result(report: dict[str, Any]) -> Result:
    statuses: dict[str, int] = report["statusCodeDistribution"]
    latency = {each["percentage"]: each["latency"] / 1e6 for each in report["latencyDistribution"] or ()}
    return Result(
        rate=report["rps"],
        median=latency.get(50, 0.0),
        p99=latency.get(99, 0.0),
        ok=statuses.pop("OK", 0),
        refused=statuses,
    )
