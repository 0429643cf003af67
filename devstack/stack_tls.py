"""The certificates of a stack with TLS: made anew at each start, by an authority that stays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from devstack.servers import Postgres, Server, Valkey
from devstack.servers.tls_stores import TlsPostgres, TlsRedis, find_redis, has_postgresql
from operations.processes import KINDS, ProcessKind
from operations.provision.certificates import AUTHORITY, OPERATOR, provision

LIFETIME, AUTHORITY_LIFETIME = timedelta(days=90), timedelta(days=3650)


@dataclass(frozen=True)
class StackTls:
    """The certificates in a folder."""

    folder: Path

    @classmethod
    def provision(cls, folder: Path) -> "StackTls":
        """Make the certificates, for this machine alone.

        Raises:
            StartError: the authority in the folder cannot be used.
        """
        provision(folder, (), LIFETIME, AUTHORITY_LIFETIME)
        return cls(folder.absolute())

    @property
    def authority(self) -> Path:
        return self.folder / f"{AUTHORITY}.pem"

    def get_pair(self, name: str) -> tuple[Path, Path]:
        """Return the paths of the certificate and the key of a process or store."""
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    @property
    def settings(self) -> Mapping[str, str]:
        """The settings of all processes, with the certificate of an operator."""
        certificate, key = self.get_pair(OPERATOR)
        return {"tls_ca": str(self.authority), "tls_certificate": str(certificate), "tls_key": str(key)}

    @property
    def kind_environment(self) -> Mapping[ProcessKind, Mapping[str, str]]:
        """The variables with the certificate of each kind of process."""
        pairs = {kind: self.get_pair(kind.name) for kind in KINDS}
        return {
            kind: {"DIPTYCH_TLS_CERTIFICATE": str(certificate), "DIPTYCH_TLS_KEY": str(key)}
            for kind, (certificate, key) in pairs.items()
        }

    def create_postgresql(self, folder: Path, port: int | None, keep: Sequence[int]) -> Postgres:
        """Return PostgreSQL, with TLS if its programs have it."""
        if has_postgresql():
            return TlsPostgres(folder, port, keep, tls=self.get_store("postgresql"))
        return Postgres(folder, port, keep)

    def create_redis(self, folder: Path, port: int | None, keep: Sequence[int], users: Path) -> Server:
        """Return Redis with TLS if this machine has it, otherwise Valkey; neither reads the other's data."""
        if (program := find_redis()) is None:
            return Valkey(folder / "redis", port, keep, users=users)
        tls = self.get_store("redis")
        return TlsRedis(folder / "redis-tls", port, keep, tls=tls, program=program, users=users)

    def get_store(self, name: str) -> tuple[Path, Path, Path]:
        """Return the certificate and the key of a store, and the authority."""
        return *self.get_pair(name), self.authority
