"""PostgreSQL and Redis with TLS, from programs that can: those of the wheels cannot."""

import shutil
import ssl
from collections.abc import Sequence
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError

from devstack.servers.postgres import Postgres, find_postgres_program
from devstack.servers.server import Server

Tls = tuple[Path, Path, Path]
"""The paths of a store's certificate and key, and of the authority."""

REDIS_PROGRAM = "redis-server"
TLS_ADVICE = {
    "PostgreSQL": "set PG_BIN to the programs of one with TLS (apt install postgresql)",
    "Valkey": "install a Redis with TLS (apt install redis-server)",
}
"""What gives a store of the local stack TLS, by its name."""


def can_tls(program: Path) -> bool:
    """Return whether a program is linked to OpenSSL."""
    return program.is_file() and b"libssl.so" in program.read_bytes()


def find_redis() -> Path | None:
    """Return a Redis with TLS; None if this machine has none."""
    found = shutil.which(REDIS_PROGRAM)
    return Path(found) if found and can_tls(Path(found)) else None


def has_postgresql() -> bool:
    """Return whether the PostgreSQL of the stack has TLS."""
    return can_tls(find_postgres_program("postgres"))


class TlsPostgres(Postgres):
    """PostgreSQL with TLS, which clients may do without.

    Args:
        folder: as `Postgres`, and so are the others.
        port: its listening port.
        keep: file descriptors that it inherits.
        durable: whether commits survive a crash of the machine.
        tls: its certificate, which it reads from copies in its folder.
    """

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        keep: Sequence[int] = (),
        *,
        durable: bool = True,
        tls: Tls,
    ) -> None:
        super().__init__(folder, port, keep, durable=durable)
        self.tls = tls

    @property
    def options(self) -> dict[str, str]:
        return {"sslmode": "verify-full", "sslrootcert": str(self.tls[2])}

    async def _prepare(self) -> None:
        await super()._prepare()
        self.copy_certificate()

    def copy_certificate(self) -> None:
        """Copy the certificate and key; PostgreSQL refuses keys of other users."""
        for source, name in zip(self.tls, ("server.crt", "server.key"), strict=False):
            copy = self.data / name
            copy.unlink(missing_ok=True)
            copy.touch(mode=0o600)
            copy.write_bytes(source.read_bytes())

    def _command(self) -> list[str | Path]:
        return [*super()._command(), "--ssl=on"]


class TlsRedis(Server):
    """Redis with TLS alone, configured as `Valkey`.

    Args:
        folder: for its data and its log.
        port: its listening port; None for a free one.
        keep: file descriptors that it inherits.
        tls: its certificate.
        program: a Redis with TLS.
        users: a file with users (ACL); None to ask for none.
    """

    name = "Redis"

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        keep: Sequence[int] = (),
        *,
        tls: Tls,
        program: Path,
        users: Path | None = None,
    ) -> None:
        super().__init__(folder, port, keep)
        self.tls = tls
        self._program = program
        self._users = users

    @property
    def url(self) -> str:
        return f"rediss://127.0.0.1:{self.port}/0?ssl_ca_certs={self.tls[2]}"

    async def is_ready(self) -> bool:
        try:
            async with Redis.from_url(self.url) as redis:
                return bool(await redis.ping())
        except AuthenticationError:  # it asks for a user
            return True
        except (RedisError, OSError, ssl.SSLError):
            return False

    def _command(self) -> list[str | Path]:
        certificate, key, authority = self.tls
        settings = {
            "bind": "127.0.0.1",
            "port": 0,
            "tls-port": self.port,
            "tls-cert-file": certificate,
            "tls-key-file": key,
            "tls-ca-cert-file": authority,
            "tls-auth-clients": "no",
            "dir": self.folder,
            "maxmemory-policy": "noeviction",
            "appendonly": "yes",
            "save": "",
            **({"aclfile": self._users} if self._users else {}),
        }
        arguments = (part for name, value in settings.items() for part in (f"--{name}", str(value)))
        return [self._program, *arguments]
