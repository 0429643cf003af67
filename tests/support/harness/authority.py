"""Certificates of an authority of its own, in a folder, for tests of TLS."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc

from operations.provision.authority import create_authority, issue

HOUR = timedelta(hours=1)


class Authority:
    """An authority that issues certificates into a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self.pair = create_authority(HOUR, name)
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(self.pair.certificate_pem)

    def write(
        self,
        name: str,
        hosts: tuple[str, ...] = ("127.0.0.1", "localhost"),
        *,
        spiffe_id: str = "",
        lifetime: timedelta = HOUR,
    ) -> tuple[Path, Path]:
        """Issue a certificate; return the paths of it and of its key, which replace those of this name."""
        pair = issue(self.pair, name, hosts, spiffe_id, lifetime)
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        for path, content in zip(paths, (pair.certificate_pem, pair.key_pem), strict=True):
            new = path.with_suffix(".new")
            new.touch(mode=0o600)
            new.write_bytes(content)
            new.replace(path)
        return paths

    def settings(self, name: str = "server", **issued: Any) -> dict[str, Any]:
        """Return the settings of a server with a new certificate."""
        certificate, key = self.write(name, **issued)
        return {"tls_certificate": str(certificate), "tls_key": str(key)}

    def credentials(self, name: str = "", **issued: Any) -> grpc.ChannelCredentials:
        """Return the credentials of a client, with a new certificate if it has a name."""
        own = [path.read_bytes() for path in self.write(name, **issued)] if name else [None, None]
        return grpc.ssl_channel_credentials(self.path.read_bytes(), own[1], own[0])
