"""Prometheus on this machine, with the configuration and the rules of deploy/observability."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from devstack.observe.programs import PROMETHEUS
from devstack.observe.web_server import WebServer
from runtime.process.start_error import StartError

DEPLOY = Path(__file__).parents[2] / "deploy" / "observability"
"""The configuration of Prometheus and Alertmanager, which is in the repository alone."""
KEEP_DATA = "2d"


@dataclass(frozen=True)
class Target:
    """A process to scrape.

    Args:
        job: the kind of process.
        instance: its name.
        address: the `host:port` of its `/metrics`.
    """

    job: str
    instance: str
    address: str


def find_deployed(name: str) -> Path:
    """Return a file of deploy/observability.

    Raises:
        StartError: it is missing.
    """
    if not (path := DEPLOY / name).is_file():
        raise StartError(f"{path} is missing: run this in Diptych's repository")
    return path


class Prometheus(WebServer):
    """Prometheus, with its data in the folder.

    Args:
        folder: for its configuration, data and log.
        targets: the processes to scrape.
        alertmanager: the `host:port` of Alertmanager; None for none.
        port: its listening port; None for a free one.
        keep: file descriptors that it inherits.
        adapt: changes the text of a configuration file, for tests with shorter times.

    Raises:
        StartError: the program is missing.
    """

    name = "Prometheus"
    health_path = "/-/ready"

    def __init__(
        self,
        folder: Path,
        targets: Sequence[Target],
        alertmanager: str | None,
        port: int | None = None,
        keep: Sequence[int] = (),
        adapt: Callable[[str], str] = str,
    ) -> None:
        super().__init__(folder, port, keep)
        self._program = PROMETHEUS.find()
        self._adapt = adapt
        self._targets = targets
        self._alertmanager = alertmanager

    async def _prepare(self) -> None:
        for name in ("prometheus.yml", "alerts.yml"):
            (self.folder / name).write_text(self._adapt(find_deployed(name).read_text()))
        targets = [
            {"targets": [target.address], "labels": {"job": target.job, "instance": target.instance}}
            for target in self._targets
        ]
        managers = [{"targets": [self._alertmanager]}] if self._alertmanager else []
        (self.folder / "targets.json").write_text(json.dumps(targets, indent=2))
        (self.folder / "alertmanagers.json").write_text(json.dumps(managers, indent=2))

    def _command(self) -> list[str | Path]:
        settings = {
            "config.file": self.folder / "prometheus.yml",
            "storage.tsdb.path": self.folder / "data",
            "storage.tsdb.retention.time": KEEP_DATA,
            "web.listen-address": f"127.0.0.1:{self.port}",
            "web.external-url": self.url,
            "enable-feature": "exemplar-storage",
            "log.level": "warn",
        }
        return [self._program, *(f"--{name}={value}" for name, value in settings.items())]
