"""The metrics of the system while its readings fail or hang."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from contracts.streams import PARTITIONS
from operations_server import metrics, system_gauges
from operations_server.status.states import ProjectionState
from operations_server.system_gauges import GAUGES, SystemGauges, compute_values
from tests.support.harness.waiting import until
from tests.unit.operations_server.test_findings import AWAY, HEALTHY, MODEL, NAME, READY


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


def test_builds_beside_the_serving_generation_have_their_progress() -> None:
    half = ProjectionState(checkpoints=dict.fromkeys(range(PARTITIONS), ("e", 4)))
    begun = ProjectionState(checkpoints={0: ("e", 8), 1: ("other", 8)})
    kept = {(NAME, "2.1"): half, (NAME, "2.2"): begun, (NAME, "1"): READY}
    values = compute_values(replace(HEALTHY, read_model=replace(MODEL, kept=kept)))
    assert values[metrics.GENERATION_PROGRESS] == {
        (NAME, "2.1"): 0.5,
        (NAME, "2.2"): 1 / PARTITIONS,
        (NAME, "1"): 1.0,
    }
    assert values[metrics.BUILD_PROGRESS] == {(NAME,): 1.0}
    for model in (replace(MODEL, kept={}), AWAY):
        assert compute_values(replace(HEALTHY, read_model=model))[metrics.GENERATION_PROGRESS] == {}


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
