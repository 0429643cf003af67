"""A child process that can be started, awaited, stopped, killed and frozen, and never outlives its parent."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

_CHILD_EXEC = Path(__file__).with_name("child_exec.py")

Output = Path | Callable[[str], None]
"""The receiver of a child's lines: a file to append to, or a function to call with each line."""
_MAX_LINE_LENGTH = 2**24
_STOP_TIMEOUT = 1.0
"""Seconds to wait until all threads of a frozen program stand still."""


class Child:
    """One program, which may run several times, one run after another.

    Args:
        name: for messages.
        command: the program's path and its arguments.
        output: receives its lines.
        environment: all its variables; None for those of this process.
        stop_signal: makes it stop gracefully; the kernel sends it too when this process dies.
        unprivileged: the program's folder, if the program refuses to run as root; None otherwise.
        keep: file descriptors that it inherits.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        output: Output,
        *,
        environment: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        unprivileged: Path | None = None,
        keep: Sequence[int] = (),
    ) -> None:
        self.name = name
        self._command = [str(part) for part in command]
        self._output = output
        self.environment = environment
        self._stop_signal = stop_signal
        self._unprivileged = unprivileged
        self._keep = keep
        self._process: Process | None = None
        self._all_ended = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    @property
    def process(self) -> Process:
        """The latest run.

        Raises:
            RuntimeError: it was never started.
        """
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process

    @property
    def running(self) -> bool:
        """Whether the latest run has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the program, without waiting until it is ready."""
        pipe_end = self._watch_processes()
        log = PIPE if callable(self._output) else _open_log(self._output)
        try:
            self._process = await self._execute(log, (pipe_end, *self._keep))
        finally:
            os.close(pipe_end)
            if log != PIPE:
                os.close(log)
        self._reader = asyncio.create_task(self._forward_lines())

    async def _execute(self, output: int, inherited: Sequence[int]) -> Process:
        """Start the program in a session of its own: Ctrl-C is for this process, which stops all in order.

        Args:
            output: the file descriptor for its output, or PIPE.
            inherited: further file descriptors for it.
        """
        parent = (str(os.getpid()), str(int(self._stop_signal)), str(self._unprivileged or "-"))
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(_CHILD_EXEC), *parent),
            *self._command,
            stdin=DEVNULL,
            stdout=output,
            stderr=STDOUT,
            env=self.environment,
            start_new_session=True,
            pass_fds=inherited,
            limit=_MAX_LINE_LENGTH,
        )

    def _watch_processes(self) -> int:
        """Return the end of a pipe that all processes of the child inherit; the last one to end closes it."""
        loop = asyncio.get_running_loop()
        self._all_ended = all_ended = asyncio.Event()
        own_end, child_end = os.pipe()

        def on_closed() -> None:
            loop.remove_reader(own_end)
            os.close(own_end)
            all_ended.set()

        loop.add_reader(own_end, on_closed)
        return child_end

    async def stop(self, seconds: float = 20.0) -> int:
        """Stop the program, or kill it after these seconds; return its exit code, 0 if it never ran."""
        if self._process is None:
            return 0
        if self.running:
            with suppress(ProcessLookupError):
                self.process.send_signal(self._stop_signal)
            self.thaw()
        try:
            return await asyncio.wait_for(self.wait_ended(), seconds)
        except TimeoutError:
            return await self.kill()

    async def kill(self) -> int:
        """Kill the program with all processes of its group, like a crash; return its exit code."""
        self._signal(signal.SIGKILL, self.process.pid)
        return await self.wait_ended()

    def freeze(self) -> None:
        """Suspend the program, like a machine that hangs; return once it stands still."""
        pids = (self.process.pid, *list_children(self.process.pid))
        self._signal(signal.SIGSTOP, *pids)
        end = monotonic() + _STOP_TIMEOUT
        while not all(map(_stands_still, pids)) and monotonic() < end:  # the signal takes a moment
            sleep(0.0005)

    def thaw(self) -> None:
        """Resume a frozen program."""
        self._signal(signal.SIGCONT, self.process.pid, *list_children(self.process.pid))

    def _signal(self, number: signal.Signals, *pids: int) -> None:
        """Send a signal to the groups of these processes, if the program runs."""
        for pid in pids if self.running else ():
            with suppress(ProcessLookupError):  # it has ended, but its exit code has not been read yet
                os.killpg(os.getpgid(pid), number)

    async def wait_ended(self) -> int:
        """Wait until the program and all processes that it started have ended; return its exit code."""
        code = await self.process.wait()
        await self._all_ended.wait()
        if self._reader is not None:
            await self._reader
        return code

    def last_line(self) -> str:
        """Return `: ` and the last line of its log file with the file's path; empty if it has no log file."""
        if not isinstance(self._output, Path):
            return ""
        lines = self._output.read_text(errors="replace").strip().splitlines() or ["no output"]
        return f": {lines[-1]} (more in {self._output})"

    async def _forward_lines(self) -> None:
        """Pass every line to the output, if it is a function."""
        if callable(self._output) and self.process.stdout is not None:
            async for line in self.process.stdout:
                self._output(line.decode(errors="replace").rstrip("\n"))


def _open_log(path: Path) -> int:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.fchmod(log, 0o600)  # one of an earlier release
    return log


def _stands_still(pid: int) -> bool:
    """Return whether all threads of a process are stopped; also of one that has ended."""
    with suppress(OSError):  # it ends at this moment
        states = [
            each.read_text().rpartition(")")[2].split()[0]
            for each in Path(f"/proc/{pid}/task").glob("*/stat")
        ]
        return all(state in "TtZX" for state in states)
    return True


def list_children(pid: int) -> list[int]:
    """Return the running children of a process; empty on systems without /proc."""
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
