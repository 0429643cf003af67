"""Times that are set aside are counted by stream type, and logged once while they follow each other."""

from datetime import timedelta

import pytest

from command_server import metrics, observer
from command_server.observer import QUIET_PERIOD, TimeSetAsideReport

LEADS = {"ledger.account.a": timedelta(hours=3), "ledger.cheque.c": timedelta(seconds=2)}


def test_a_repeated_report_is_counted_and_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[dict[str, object]] = []
    times = iter([0.0, 0.0, 1.0, 1.0, 2 + QUIET_PERIOD, 2 + QUIET_PERIOD])
    monkeypatch.setattr(observer, "monotonic", lambda: next(times))
    monkeypatch.setattr(observer.log, "warning", lambda _, **fields: logged.append(fields), raising=False)
    metrics.TIMES_SET_ASIDE.clear()
    report = TimeSetAsideReport()
    for _ in range(3):
        report(LEADS)
    assert logged == [{"stream": "ledger.account.a", "lead": 10_800.0, "streams": 2}] * 2
    assert metrics.TIMES_SET_ASIDE.sums == {("ledger.account",): 3, ("ledger.cheque",): 3}
