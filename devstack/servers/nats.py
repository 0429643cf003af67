"""NATS on this machine."""

import sysconfig
from pathlib import Path

from devstack.servers.server import Server, first_line


class Nats(Server):
    """NATS with JetStream."""

    name = "NATS"

    @property
    def url(self) -> str:
        """See Server."""
        return f"nats://127.0.0.1:{self.port}"

    async def answers(self) -> bool:
        """See Server. NATS listens only once JetStream has recovered, and then greets with what it offers."""
        return b'"jetstream":true' in await first_line(self.port)

    def _command(self) -> list[str | Path]:
        program = Path(sysconfig.get_path("scripts"), "nats-server")
        return [program, "--addr", "127.0.0.1", "--port", str(self.port), "--jetstream", "-sd", self.folder]
