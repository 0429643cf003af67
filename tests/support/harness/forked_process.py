"""Python processes that are forked from a template, which has imported the third-party packages.

Except for its faster start such a process is like one that was executed: a child of this process with its own
environment, output, session, signals and exit code. Only `/proc/PID/cmdline` is the template's, and all of a
test worker share one seed of string hashes. Tests of starts themselves execute their processes.
"""

import asyncio
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Mapping, Sequence
from functools import cache
from threading import Lock

from devstack.child import Child
from tests.support.harness import fork_template

PR_SET_CHILD_SUBREAPER = 36
_MAX_LINE_LENGTH = 2**24


async def start_python(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    stdout: int = PIPE,
    stderr: int = PIPE,
    inherited: Sequence[int] = (),
    own_session: bool = False,
    death_signal: int = 0,
) -> Process:
    """Start a Python program in this folder; on Linux by a fork.

    Args:
        arguments: of `python`: a script, `-m` or `-c`, and those for the program.
        environment: all its variables; None for those of this process.
        stdout: a file descriptor or PIPE.
        stderr: a file descriptor, PIPE or STDOUT.
        inherited: further file descriptors for it.
        own_session: whether it leads a session.
        death_signal: the kernel sends it when this process dies; 0 for none.
    """
    if sys.platform != "linux":
        return await asyncio.create_subprocess_exec(
            *(sys.executable, *arguments), env=environment, stdout=stdout, stderr=stderr
        )
    request = {
        "arguments": arguments,
        "environment": dict(os.environ if environment is None else environment),
        "folder": os.getcwd(),  # noqa: PTH109 - for JSON
        "own_session": own_session,
        "parent": os.getpid(),
        "death_signal": death_signal,
    }
    template = _get_template()
    await asyncio.to_thread(template.wait_ready)
    readers: list[asyncio.StreamReader | None] = [None, None]
    opened = [os.open(os.devnull, os.O_RDONLY)]
    if stdout == PIPE:
        readers[0], stdout = await _open_pipe()
        opened.append(stdout)
    if stderr == PIPE:
        readers[1], stderr = await _open_pipe()
        opened.append(stderr)
    try:
        output = (stdout, stdout if stderr == STDOUT else stderr)
        return ForkedProcess(template.fork(request, (opened[0], *output, *inherited)), *readers)
    finally:
        for descriptor in opened:
            os.close(descriptor)


async def _open_pipe() -> tuple[asyncio.StreamReader, int]:
    """Return what reads from a new pipe, and the pipe's other end."""
    own_end, other_end = os.pipe()
    reader = asyncio.StreamReader(_MAX_LINE_LENGTH)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(own_end, "rb")
    )
    return reader, other_end


class ForkedChild(Child):
    """A child that is forked if it is a Python program."""

    async def _execute(self, output: int, inherited: Sequence[int]) -> Process:
        if self._command[0] != sys.executable:
            return await super()._execute(output, inherited)
        return await start_python(
            *self._command[1:],
            environment=self.environment,
            stdout=output,
            stderr=STDOUT,
            inherited=inherited,
            own_session=True,
            death_signal=self._stop_signal,
        )


class ForkedProcess(Process):
    """A forked process, with the interface of an executed one."""

    def __init__(
        self, pid: int, stdout: asyncio.StreamReader | None, stderr: asyncio.StreamReader | None
    ) -> None:
        self.pid, self.stdin, self.stdout, self.stderr = pid, None, stdout, stderr
        self._code: int | None = None
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._descriptor = os.pidfd_open(pid)
        self._loop.add_reader(self._descriptor, self._on_end)

    def _on_end(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._ended.set()

    @property
    def returncode(self) -> int | None:
        return self._code

    async def wait(self) -> int:
        await self._ended.wait()
        return self._code or 0

    async def communicate(self, _: object = None) -> tuple[bytes, bytes]:
        out, err = [await stream.read() if stream else b"" for stream in (self.stdout, self.stderr)]
        await self.wait()
        return out, err

    def send_signal(self, signal: int) -> None:
        if self._code is not None:
            raise ProcessLookupError
        os.kill(self.pid, signal)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Template:
    """The template of this process, which ends with it."""

    def __init__(self) -> None:
        self._requests, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other_end:
            subprocess.Popen(
                (sys.executable, "-P", fork_template.__file__, str(other_end.fileno())),
                stdin=DEVNULL,
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                pass_fds=[other_end.fileno()],
                start_new_session=True,
            )
        self._ready, self._lock = False, Lock()

    def wait_ready(self) -> None:
        with self._lock:
            self._ready = self._ready or self._requests.recv(32) == fork_template.READY
        assert self._ready

    def fork(self, request: Mapping[str, object], descriptors: Sequence[int]) -> int:
        """Fork a process, which becomes a child of this one; return its id."""
        prctl = ctypes.CDLL(None).prctl
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        try:
            socket.send_fds(self._requests, [json.dumps(request).encode()], descriptors)
            return int(self._requests.recv(32))
        finally:
            prctl(PR_SET_CHILD_SUBREAPER, 0)


_get_template = cache(_Template)
