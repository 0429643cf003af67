"""Stacks that another process runs, so that any version of the code can be measured by the same program."""

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.comparison import InvalidRun

ROOT = Path(__file__).parent.parent
HOST = Path(__file__).with_name("stack_host.py")
START_TIMEOUT = VERIFY_TIMEOUT = 120.0
"""Seconds."""
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

    def __init__(self, process: Process, system: RunningSystem) -> None:
        self._process = process
        self.system = system

    async def check_consistency(self) -> None:
        """Let the stack's own verifier compare everything with an independent fold of the events.

        Raises:
            InvalidRun: it has findings.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(b"verify\n")
        report = await _read_reply(self._process, VERIFY_TIMEOUT)
        if not report["clean"]:
            raise InvalidRun(f"the verifier has findings:\n{report['text']}")


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
        try:
            yield HostedStack(process, RunningSystem(**await _read_reply(process, START_TIMEOUT)))
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()


async def _read_reply(process: Process, timeout: float) -> Any:
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), timeout)
    except TimeoutError as error:
        raise InvalidRun(f"the stack has not replied for {timeout:.0f} s") from error
    if not line:
        raise InvalidRun("the stack has ended; its errors are above")
    return json.loads(line)
