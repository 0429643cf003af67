"""NATS on this machine."""

import sysconfig
from pathlib import Path

from devstack.servers.server import Server, read_first_line


class Nats(Server):
    """NATS with JetStream."""

    name = "NATS"

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def is_ready(self) -> bool:
        # NATS listens only after JetStream has recovered, and its greeting lists its features.
        return b'"jetstream":true' in await read_first_line(self.port)

    def _command(self) -> list[str | Path]:
        program = Path(sysconfig.get_path("scripts"), "nats-server")
        return [program, "--addr", "127.0.0.1", "--port", str(self.port), "--jetstream", "-sd", self.folder]
