"""The metrics of the system while its readings fail or hang."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from operations_server import metrics, system_gauges
from operations_server.system_gauges import GAUGES, SystemGauges
from tests.support.harness.waiting import until
from tests.unit.operations_server.test_findings import HEALTHY


class System:
    """Returns readings as long as it works."""

    works = True
    readings = 0

    async def read(self) -> Any:
        self.readings += 1
        if not self.works:
            raise RuntimeError("a bug")
        return HEALTHY


@pytest.fixture(autouse=True)
def gauges() -> Iterator[None]:
    yield
    for gauge in (*GAUGES, metrics.READING_AGE):
        gauge.clear()


def read_age() -> float:
    return metrics.READING_AGE.read_values()[()]


async def test_the_age_of_the_reading_grows_while_readings_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr(system_gauges, "monotonic", lambda: now)
    monkeypatch.setattr(system_gauges, "INTERVAL", 0.0)
    system = System()
    gauges = SystemGauges(system)  # type: ignore[arg-type]
    now += 7
    assert read_age() == 7
    running = asyncio.create_task(gauges.run())
    await until(lambda: bool(metrics.FINDINGS.read_values()))
    assert read_age() == 0
    system.works = False
    await until(lambda: not metrics.FINDINGS.read_values())
    now += 60
    before = system.readings
    await until(lambda: system.readings > before + 1)
    assert read_age() == 60
    running.cancel()
