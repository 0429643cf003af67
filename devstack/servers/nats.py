"""NATS on this machine."""

import sysconfig
from collections.abc import Sequence
from pathlib import Path

from devstack.servers.server import Server, read_first_line


class Nats(Server):
    """NATS with JetStream.

    Args:
        folder: for its data and its log.
        port: its listening port; None for a free one.
        keep: file descriptors that it inherits.
        tls: its certificate, its key, and the authority of both sides; None for plaintext.
        verifies_clients: whether clients need a certificate, too.
        configuration: a file with its users; None to ask for none.
    """

    name = "NATS"

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        keep: Sequence[int] = (),
        *,
        tls: tuple[Path, Path, Path] | None = None,
        verifies_clients: bool = False,
        configuration: Path | None = None,
    ) -> None:
        super().__init__(folder, port, keep)
        self._tls = tls
        self._verifies_clients = verifies_clients
        self._configuration = configuration

    @property
    def url(self) -> str:
        if self._tls is None:
            return f"nats://127.0.0.1:{self.port}"
        return f"tls://127.0.0.1:{self.port}?ca={self._tls[2]}"

    async def is_ready(self) -> bool:
        # NATS listens only after JetStream has recovered, and its greeting lists its features.
        return b'"jetstream":true' in await read_first_line(self.port)

    def _command(self) -> list[str | Path]:
        program = Path(sysconfig.get_path("scripts"), "nats-server")
        address = ["--addr", "127.0.0.1", "--port", str(self.port)]
        users: list[str | Path] = ["--config", self._configuration] if self._configuration else []
        return [program, *address, "--jetstream", "-sd", self.folder, *self._tls_arguments(), *users]

    def _tls_arguments(self) -> list[str | Path]:
        if self._tls is None:
            return []
        certificate, key, authority = self._tls
        arguments: list[str | Path] = ["--tls", "--tlscert", certificate, "--tlskey", key]
        if self._verifies_clients:
            arguments += ["--tlsverify", "--tlscacert", authority]
        return arguments
