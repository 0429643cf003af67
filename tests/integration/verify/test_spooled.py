"""`diptych verify` with all events and histories in files finds the same faults; see `verify/spool.py`."""

import pytest

from operations.verify import spool
from operations.verify.sources import postgres_reader, redis_reader
from tests.integration.verify import test_derived, test_event_store
from tests.support.harness.verified_system import System

FAULTS = {
    name: test
    for module in (test_derived, test_event_store)
    for name, test in vars(module).items()
    if name.startswith("test_")
}
globals().update({name: pytest.mark.long(test) for name, test in FAULTS.items()})


@pytest.fixture(autouse=True)
def spooled(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (spool, postgres_reader, redis_reader):
        monkeypatch.setattr(module, "SPOOLED_ITEMS", 1)


async def test_a_system_at_rest_is_clean(system: System) -> None:
    report = await system.verify()
    assert report.clean, report.to_text()
    assert report.counts["events"] == report.counts["messages"] == report.counts["history"] == 16
