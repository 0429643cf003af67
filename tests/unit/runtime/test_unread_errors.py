"""Several tasks fail together: one error is raised, and none of the others is reported as never retrieved."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from query_server.change_notifications import ChangeNotifications
from runtime.leader_lease import _run_until_one_ends
from runtime.process.lifecycle import cancel_and_wait
from tests.support.harness.stray_errors import no_stray_errors
from tests.support.ledger.projections import CHEQUES


async def fail(*_: object) -> None:
    raise ConnectionError("lost")


async def fail_when_cancelled() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        raise ConnectionError("lost meanwhile")


async def test_tasks_that_are_ended_may_have_failed() -> None:
    with no_stray_errors():
        tasks = [asyncio.create_task(each()) for each in (fail, fail_when_cancelled)]
        await asyncio.sleep(0)
        await cancel_and_wait(*tasks)
        del tasks


async def run_leader(_: pytest.MonkeyPatch) -> None:
    await _run_until_one_ends(fail, fail, fail_when_cancelled)


async def run_notifications(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChangeNotifications, "_receive", fail)
    monkeypatch.setattr(ChangeNotifications, "_watch_builds", fail)
    without_servers: Any = None
    notifications = ChangeNotifications(without_servers, without_servers, [CHEQUES.view])
    await notifications.run(asyncio.Event())


@pytest.mark.parametrize("run", [run_leader, run_notifications])
async def test_parts_that_fail_together_raise_one_error(
    run: Callable[[pytest.MonkeyPatch], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with no_stray_errors(), pytest.raises(ConnectionError):
        await run(monkeypatch)
