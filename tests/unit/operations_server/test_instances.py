"""The processes that report about themselves, in the status."""

from dataclasses import replace
from datetime import UTC, timedelta

from operations_server.status.messages import build_status
from runtime.process.settings import Settings
from runtime.process_reports.health import Reports
from runtime.process_reports.report import LIFETIME, Report
from runtime.process_reports.stored_report import MAX_LEAD, StoredReport
from tests.unit.operations_server.test_findings import HEALTHY, NOW


def stored(name: str, age: float, uptime: float, kind: str = "relay") -> StoredReport:
    return StoredReport(name, age, Report(kind, "1.0", uptime))


async def test_a_killed_instance_of_several_shows_beside_those_that_live() -> None:
    async def read_postgres() -> list[StoredReport]:
        return [
            stored("young", 1, 10),
            stored("old", LIFETIME, 500),
            stored("killed", LIFETIME + 1, 60),
            stored("killed before", 200, 60),
            stored("of a clock that was set back", -2 * MAX_LEAD, 60),
        ]

    async def read_redis() -> list[StoredReport]:
        return [stored("p", 2, 7, kind="projector")]

    health = await Reports(Settings(), read_postgres, read_redis).read()
    snapshot = replace(HEALTHY, health=health)
    projectors, relays = build_status(snapshot).instances
    assert (projectors.kind, [each.name for each in projectors.living]) == ("projector", ["p"])
    assert [each.name for each in relays.living] == ["old", "young"]
    assert [each.name for each in relays.gone] == ["killed", "killed before"]
    (killed, _), (_, young) = relays.gone, relays.living
    assert killed.report_time.ToDatetime(UTC) == NOW - timedelta(seconds=LIFETIME + 1)
    assert young.start_time.ToDatetime(UTC) == NOW - timedelta(seconds=11)
