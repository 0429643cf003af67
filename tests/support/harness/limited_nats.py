"""A NATS server whose limit of message sizes a test changes while it runs."""

import signal
from pathlib import Path

from devstack.servers import Nats


class LimitedNats(Nats):
    """NATS with a configuration file that sets `max_payload`."""

    @property
    def _config(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.conf")

    def set_max_payload(self, size: int) -> None:
        """Write the limit and reload the server if it runs; its clients hear nothing of it."""
        self._config.write_text(f"max_payload: {size}\n")
        if self._child is not None and self._child.running:
            self.child.process.send_signal(signal.SIGHUP)

    def _command(self) -> list[str | Path]:
        if not self._config.exists():
            self._config.write_text("max_payload: 1048576\n")
        return [*super()._command(), "-c", self._config]
