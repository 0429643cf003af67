"""A real Prometheus and Alertmanager that watch a stack and report its alerts to a webhook."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic, time

from devstack.observe.alert_receiver import Alert, AlertReceiver
from devstack.observe.alertmanager import Alertmanager
from devstack.observe.observation import list_targets
from devstack.observe.prometheus import Prometheus
from devstack.stack import Stack
from tests.support.harness.observers import get_json, query
from tests.support.harness.waiting import until


class Alerting:
    """What arrives at the webhook."""

    def __init__(self, prometheus: str) -> None:
        self.prometheus = prometheus
        self.began = time()
        self.received: list[tuple[float, Alert]] = []
        """Alerts with the times of their arrival, also those that have ended."""

    def receive(self, alert: Alert) -> None:
        self.received.append((monotonic(), alert))

    async def wait_firing(self, name: str, seconds: float = 60.0, since: float = 0.0, **labels: str) -> float:
        """Wait for an alert with these labels; return the time at which it arrived."""
        arrivals: list[float] = []

        def has_arrived() -> bool:
            arrivals[:] = [
                time
                for time, alert in self.received
                if time >= since
                and alert.firing
                and alert.name == name
                and labels.items() <= alert.labels.items()
            ]
            return bool(arrivals)

        has_arrived.__qualname__ = f"{name} {labels}"
        await until(has_arrived, seconds)
        return arrivals[0]

    async def wait_ended(self, name: str, seconds: float = 60.0) -> None:
        """Wait until Prometheus has no firing alert of this name."""
        await until(lambda: self.query(f'ALERTS{{alertname="{name}",alertstate="firing"}}') == 0, seconds)

    def had_series(self, expression: str) -> bool:
        """Return whether an expression has had a series at any time of the test."""
        now = time()
        parameters = {"query": expression, "start": f"{self.began}", "end": f"{now}", "step": "2"}
        answer = get_json(f"{self.prometheus}/api/v1/query_range", **parameters)
        return bool(answer["data"]["result"])

    def query(self, expression: str) -> int:
        """Return the number of series of an expression."""
        return len(query(self.prometheus, expression))


@asynccontextmanager
async def alerting(stack: Stack, folder: Path, adapt: Callable[[str], str] = str) -> AsyncIterator[Alerting]:
    """Watch a running stack.

    Args:
        stack: a stack whose processes serve their metrics.
        folder: for configuration, data and logs.
        adapt: changes the configuration.
    """
    receiver = AlertReceiver(lambda alert: found.receive(alert))
    receiver.start()
    manager = Alertmanager(folder / "alertmanager", receiver.url, adapt=adapt)
    prometheus = Prometheus(
        folder / "prometheus", list_targets(stack), f"127.0.0.1:{manager.port}", adapt=adapt
    )
    found = Alerting(prometheus.url)
    try:
        await asyncio.gather(manager.start(), prometheus.start())
        await until(lambda: found.query("up == 1") == len(stack.processes), 30)
        yield found
    finally:
        await asyncio.gather(prometheus.stop(), manager.stop())
        receiver.stop()


def hasten(text: str) -> str:
    """Return a configuration whose times are some seconds at most, with lower limits of ages.

    Records are sealed every 20 seconds here, too: with the limit of other ages their alert would always fire.
    """
    replacements = {
        r"scrape_interval: 5s": "scrape_interval: 1s",
        r"scrape_timeout: 4s": "scrape_timeout: 1s",
        r"evaluation_interval: 5s": "evaluation_interval: 1s",
        r"for: \w+": "for: 1s",
        r"\[[15]m\]": "[20s]",
        r"\[1h\] offset 5m": "[2m] offset 20s",
        r"(?<!seal)_age_seconds\) > \d+": "_age_seconds) > 3",
        r"seal_age_seconds\) > \d+": "seal_age_seconds) > 15",
        r"group_wait: \w+": "group_wait: 0s",
        r"group_interval: \w+": "group_interval: 1s",
    }
    for pattern, value in replacements.items():
        text = re.sub(pattern, value, text)
    return text
