"""Stacks that another process runs, so that any version of the code can be measured by the same program."""

import asyncio
import json
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from bench.comparison import InvalidRun

ROOT = Path(__file__).parent.parent
HOST = Path(__file__).with_name("stack_host.py")
REPLY_TIMEOUT = 120.0
"""Seconds that a start or a verification may take."""
LINE_LIMIT = 2**24
"""Bytes of a reply, at most."""


@dataclass(frozen=True)
class RunningSystem:
    """A running stack, as measurements see it."""

    command_address: str
    query_address: str
    database_url: str
    nats_url: str
    redis_url: str
    token: str
    """An access token with the scopes of all callers."""
    processes: Mapping[str, int]
    """The process ids of all servers and processes, by name."""


class HostedStack:
    """A running stack; created by `run_stack`."""

    def __init__(self, requests: StreamWriter, replies: StreamReader, system: RunningSystem) -> None:
        self._requests, self._replies = requests, replies
        self.system = system

    async def check_consistency(self) -> None:
        """Let the stack's own verifier compare everything with an independent fold of the events.

        Raises:
            InvalidRun: it has findings.
        """
        report = await self._request(b"verify\n")
        if not report["clean"]:
            raise InvalidRun(f"the verifier has findings:\n{report['text']}")

    async def _request(self, line: bytes) -> Any:
        self._requests.write(line)
        return await _read_reply(self._replies)


@asynccontextmanager
async def run_stack(
    root: Path = ROOT, *, process_managers: int = 0, variables: Mapping[str, str] | None = None
) -> AsyncIterator[HostedStack]:
    """Run a stack of the version in `root`, with one process of each other kind and with temporary data.

    Args:
        root: a checkout that is set up (`make setup`).
        process_managers: their number.
        variables: of all its processes, besides the settings.

    Raises:
        InvalidRun: it does not start.
    """
    with TemporaryDirectory(prefix="diptych-bench-", ignore_cleanup_errors=True) as folder:
        process = await asyncio.create_subprocess_exec(
            *(root / ".venv/bin/python", "-P", HOST, folder),
            *(str(process_managers), json.dumps(dict(variables or {}))),
            cwd=root,
            stdin=PIPE,
            stdout=PIPE,
            limit=LINE_LIMIT,
        )
        requests, replies = cast("StreamWriter", process.stdin), cast("StreamReader", process.stdout)
        try:
            yield HostedStack(requests, replies, RunningSystem(**await _read_reply(replies)))
        finally:
            requests.close()
            await process.wait()


async def _read_reply(replies: StreamReader) -> Any:
    try:
        line = await asyncio.wait_for(replies.readline(), REPLY_TIMEOUT)
    except TimeoutError as error:
        raise InvalidRun(f"the stack has not replied for {REPLY_TIMEOUT:.0f} s") from error
    if not line:
        raise InvalidRun("the stack has ended; its errors are above")
    return json.loads(line)
