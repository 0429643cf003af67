"""`diptych verify` as a whole: a system at rest is clean, and how findings are told."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from diptych.ordering.v1.types_pb2 import Order

from devstack.ports import free_port
from devstack.stack import variables
from operations.verify.checks.sagas import NEVER_RAN
from operations.verify.report import CHECKS
from operations.verify.verification import verify
from runtime.process.settings import Settings
from tests.support.harness.redis_faults import key
from tests.support.harness.verified_system import ORDERS, System


async def test_a_system_at_rest_is_clean(system: System) -> None:
    report = await system.verify()
    assert (report.problems, report.notes) == ([], [NEVER_RAN])
    assert report.counted["streams"] == report.counted["snapshots"] == 5
    assert report.counted["events"] == report.counted["messages"] == report.counted["history"] == 18
    assert report.counted["views"] == 10
    assert report.counted["indexes"] == 20
    assert report.counted["requests"] == report.counted["outbox"] == 18


async def test_the_page_has_a_line_for_each_check(system: System) -> None:
    await system.change_view(ORDERS, "o-2", state=Order.STATE_PLACED)
    lines = (await system.verify()).page().splitlines()
    assert [line.split()[0] for line in lines[: len(CHECKS)]] == list(CHECKS)
    assert lines[0] == "events     18 in 5 streams: gapless"
    assert lines[6] == "views      10 views: 1 finding"
    assert lines[-1] == (
        "view ordering.order o-2: state is STATE_PLACED, the fold says STATE_CANCELLED at version 3"
    )


async def test_machines_get_an_object(system: System) -> None:
    await system.redis.zrem(key("change_feed", "customer/ada"), "o-2")
    report = json.loads((await system.verify()).json())
    assert (report["clean"], report["found"]) == (False, {"changes": 1})
    assert report["findings"] == [
        {
            "check": "changes",
            "subject": f"set of {key('change_feed', 'customer/ada')}",
            "text": "o-2 is not in it",
        }
    ]
    assert report["counted"]["events"] == 18


async def test_more_findings_than_are_shown_are_counted(system: System) -> None:
    for number in range(1, 6):
        await system.redis.hset(ORDERS.key(f"o-{number}"), "state", "x")
    report = await verify(system.settings, shown=2)
    assert report.found["views"] == 5
    assert report.page().splitlines()[-1] == "and 3 more findings; --findings shows more of them"


async def diptych_verify(settings: Settings, *arguments: str) -> tuple[int, str, str]:
    """Return the exit code, and what was said on stdout and stderr."""
    program = Path(sys.executable).with_name("diptych")
    environment = {**os.environ, **variables(settings)}
    process = await asyncio.create_subprocess_exec(
        program, "verify", *arguments, env=environment, stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_exit_code_says_whether_there_is_drift(system: System) -> None:
    code, out, err = await diptych_verify(system.settings)
    assert (code, err) == (0, "")
    assert out.startswith("events     18 in 5 streams: gapless\n")
    await system.change_view(ORDERS, "o-2", state=Order.STATE_PLACED)
    code, out, err = await diptych_verify(system.settings, "--within", "5s", "--json")
    assert (code, err) == (1, "")
    assert json.loads(out)["found"] == {"views": 1}


@pytest.mark.parametrize("setting", ["database_url", "nats_url", "redis_url"])
async def test_a_server_that_is_away_is_one_line_and_another_exit_code(system: System, setting: str) -> None:
    away = f"{getattr(system.settings, setting).partition(':')[0]}://127.0.0.1:{free_port()}"
    code, out, err = await diptych_verify(system.settings.model_copy(update={setting: away}))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("could not be checked: ")
