"""A child process: started, waited for, stopped, killed, frozen; it never outlives its parent."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_LAUNCH = Path(__file__).with_name("launch.py")

Output = Path | Callable[[str], None]
"""Where a child's lines go: appended to a file, or to a function, one by one."""
_LONGEST_LINE = 2**24


class Child:
    """One program, which may run several times, one run after another.

    Args:
        name: what people call it.
        command: the program's path and its arguments.
        output: where its lines go.
        environment: all its variables; None for those of this process.
        stop_signal: what makes it stop gracefully; it also gets it when this process dies.
        unprivileged: its folder, where the program refuses to run as root.
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
        self._environment = environment
        self._stop_signal = stop_signal
        self._unprivileged = unprivileged
        self._keep = keep
        self._process: Process | None = None
        self._gone = asyncio.Event()
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
        """Whether it runs now."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the program; it is not waited for."""
        folder = str(self._unprivileged or "-")
        parent = (str(os.getpid()), str(int(self._stop_signal)), folder)
        held = self._watch()
        log = (
            PIPE if callable(self._output) else os.open(self._output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        )
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(_LAUNCH), *parent),
                *self._command,
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for this process, which then stops the others in order
                pass_fds=(held, *self._keep),
                limit=_LONGEST_LINE,
            )
        finally:
            os.close(held)
            if log != PIPE:
                os.close(log)
        self._reader = asyncio.create_task(self._read())

    def _watch(self) -> int:
        """Return a pipe's end for all processes of the child to hold: closed, the last of them has ended."""
        loop = asyncio.get_running_loop()
        self._gone = gone = asyncio.Event()
        alive, held = os.pipe()

        def closed() -> None:
            loop.remove_reader(alive)
            os.close(alive)
            gone.set()

        loop.add_reader(alive, closed)
        return held

    async def stop(self, seconds: float = 20.0) -> int:
        """Ask the program to stop, kill it after these seconds; return its exit code (0 where none ran)."""
        if self._process is None:
            return 0
        if self.running:
            with suppress(ProcessLookupError):
                self.process.send_signal(self._stop_signal)
            self.thaw()
        try:
            return await asyncio.wait_for(self.ended(), seconds)
        except TimeoutError:
            return await self.kill()

    async def kill(self) -> int:
        """Kill the program with all processes of its group, as a crash would; return its exit code."""
        self._signal(signal.SIGKILL, self.process.pid)
        return await self.ended()

    def freeze(self) -> None:
        """Stop the program's clock, as a machine that hangs would."""
        self._signal(signal.SIGSTOP, self.process.pid, *_children(self.process.pid))

    def thaw(self) -> None:
        """Let a frozen program go on."""
        self._signal(signal.SIGCONT, self.process.pid, *_children(self.process.pid))

    def _signal(self, number: signal.Signals, *pids: int) -> None:
        """Send a signal to the groups of these processes, while the program runs."""
        for pid in pids if self.running else ():
            with suppress(ProcessLookupError):  # it has ended, which this process has yet to hear
                os.killpg(os.getpgid(pid), number)

    async def ended(self) -> int:
        """Wait until the program and all processes that it started have ended; return its exit code."""
        code = await self.process.wait()
        await self._gone.wait()
        if self._reader is not None:
            await self._reader
        return code

    def last_words(self) -> str:
        """Return its last line and where to find more; nothing where a function has had its lines."""
        if not isinstance(self._output, Path):
            return ""
        lines = self._output.read_text(errors="replace").strip().splitlines() or ["it says nothing"]
        return f": {lines[-1]} (more in {self._output})"

    async def _read(self) -> None:
        """Hand every line on, where there is a function for it."""
        if callable(self._output) and self.process.stdout is not None:
            async for line in self.process.stdout:
                self._output(line.decode(errors="replace").rstrip("\n"))


def _children(pid: int) -> list[int]:
    """Return the processes that a process has started and that run; none where the system does not tell."""
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
