"""A child process with pipes to the event loop, started without `fork`.

uvloop's own subprocesses fork, which stops a server of 150 MB for 30 to 100 ms and has gRPC write to stderr.
Python's subprocess module uses `vfork`, which copies no page tables and takes a millisecond.
"""

import asyncio
from collections.abc import Sequence
from subprocess import PIPE, Popen, TimeoutExpired
from typing import Self


class ChildProcess:
    """A running child process; created by `start`."""

    def __init__(
        self, process: Popen[bytes], stdin: asyncio.WriteTransport, stdout: asyncio.StreamReader
    ) -> None:
        self._process = process
        self._stdin = stdin
        self.stdout = stdout

    @classmethod
    async def start(cls, arguments: Sequence[str]) -> Self:
        """Start a process.

        Raises:
            OSError: it cannot be started.
        """
        process = await asyncio.to_thread(Popen, arguments, stdin=PIPE, stdout=PIPE)
        loop, stdout = asyncio.get_running_loop(), asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdout), process.stdout)
        stdin, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, process.stdin)
        return cls(process, stdin, stdout)

    def write(self, data: bytes) -> None:
        """Write to stdin; without effect if the process has ended."""
        self._stdin.write(data)

    def close_stdin(self) -> None:
        self._stdin.close()

    async def stop(self, seconds: float) -> None:
        """Close stdin, and kill the process if it does not end within these seconds."""
        self._stdin.close()
        try:
            await asyncio.to_thread(self._process.wait, seconds)
        except (TimeoutExpired, asyncio.CancelledError):
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
