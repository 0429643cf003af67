"""Each process that is killed, or frozen, is in the metrics and an alert at a webhook within 30 seconds."""

import asyncio
from pathlib import Path
from time import monotonic

import pytest

from devstack.observe.programs import ALERTMANAGER, PROMETHEUS
from devstack.stack_kinds import temporary_stack
from operations.processes import KINDS, PROJECTOR
from tests.support.harness.alerting import Alerting, alerting
from tests.support.harness.invariants import verify_stack
from tests.support.harness.observers import require

pytestmark = pytest.mark.long

WITHIN = 30.0
"""Seconds from the fault to the webhook, with the times of deploy/observability as they are."""


async def test_a_killed_or_frozen_process_is_an_alert_within_30_seconds(tmp_path: Path) -> None:
    require(PROMETHEUS, ALERTMANAGER)
    stack = temporary_stack(tmp_path / "stack", process_managers=1, operations_servers=1, metrics=True)
    async with stack, alerting(stack, tmp_path) as alerts:
        stack.of(PROJECTOR)[0].child.freeze()
        frozen = await measure(alerts, PROJECTOR.name)
        stack.of(PROJECTOR)[0].child.thaw()
        await alerts.wait_ended("ProcessAway")
        killed = {}
        for kind in KINDS:
            await stack.of(kind)[0].kill()
            killed[kind.name] = asyncio.create_task(measure(alerts, kind.name))
        delays = {name: await delay for name, delay in killed.items()}
        print(
            f"frozen projector {frozen:.1f} s; killed",
            {name: f"{delay:.1f} s" for name, delay in delays.items()},
        )
        for kind in KINDS:
            await stack.of(kind)[0].start()
        await alerts.wait_ended("ProcessAway")
        await verify_stack(stack)


async def measure(alerts: Alerting, job: str) -> float:
    """Return the seconds until the alert about a process arrives."""
    start = monotonic()
    arrival = await alerts.wait_firing("ProcessAway", WITHIN, start, job=job)
    return arrival - start
