"""Scrapes of /metrics, read by prometheus_client's parsers, which are stricter than Prometheus."""

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.support.harness.toy_process import Toy

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@dataclass(frozen=True)
class Scrape:
    """An answer, and its samples by name and labels."""

    status: int
    kind: str
    text: str

    @property
    def families(self) -> dict[str, Any]:
        parse: Any = parse_openmetrics if self.kind.startswith("application/openmetrics") else parse_text
        return {family.name: family for family in parse(self.text)}

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum of the samples with this name and at least these labels."""
        return sum(self.values(name, **labels))

    def values(self, name: str, **labels: str) -> list[float]:
        samples = [sample for family in self.families.values() for sample in family.samples]
        return [s.value for s in samples if s.name == name and labels.items() <= s.labels.items()]


async def find_port(toy: Toy) -> int:
    """Return the port at which a process answers scrapes."""
    line = await toy.line("Metrics served")
    return int(line["port"])


async def scrape(
    port: int, path: str = "/metrics", accept: str = "", method: str = "GET", seconds: float = 10.0
) -> Scrape:
    request = Request(
        f"http://127.0.0.1:{port}{path}", headers={"Accept": accept} if accept else {}, method=method
    )
    return await asyncio.to_thread(_open, request, seconds)


def _open(request: Request, seconds: float) -> Scrape:
    try:
        with urlopen(request, timeout=seconds) as answer:
            return Scrape(answer.status, answer.headers["content-type"], answer.read().decode())
    except HTTPError as error:
        return Scrape(error.code, error.headers["content-type"] or "", error.read().decode())
