"""Alertmanager on this machine, with the configuration of deploy/observability."""

from collections.abc import Callable, Sequence
from pathlib import Path

from devstack.observe.programs import ALERTMANAGER
from devstack.observe.prometheus import find_deployed
from devstack.observe.web_server import WebServer

WEBHOOK = "http://127.0.0.1:9094/"
"""The receiver in the configuration, which the stack's own replaces."""


class Alertmanager(WebServer):
    """Alertmanager, without a cluster.

    Args:
        folder: for its configuration, data and log.
        webhook: the URL that receives the alerts.
        port: its listening port; None for a free one.
        keep: file descriptors that it inherits.
        adapt: changes the text of the configuration file, for tests with shorter times.

    Raises:
        StartError: the program is missing.
    """

    name = "Alertmanager"
    health_path = "/-/ready"

    def __init__(
        self,
        folder: Path,
        webhook: str,
        port: int | None = None,
        keep: Sequence[int] = (),
        adapt: Callable[[str], str] = str,
    ) -> None:
        super().__init__(folder, port, keep)
        self._adapt = adapt
        self._program = ALERTMANAGER.find()
        self._webhook = webhook

    async def _prepare(self) -> None:
        configuration = find_deployed("alertmanager.yml").read_text().replace(WEBHOOK, self._webhook)
        (self.folder / "alertmanager.yml").write_text(self._adapt(configuration))

    def _command(self) -> list[str | Path]:
        settings = {
            "config.file": self.folder / "alertmanager.yml",
            "storage.path": self.folder / "data",
            "web.listen-address": f"127.0.0.1:{self.port}",
            "web.external-url": self.url,
            "cluster.listen-address": "",
            "log.level": "warn",
        }
        return [self._program, *(f"--{name}={value}" for name, value in settings.items())]
