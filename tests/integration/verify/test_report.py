"""`diptych verify` as a whole: a clean system at rest, the report, and the exit code."""

import json
import os
import sys
from pathlib import Path

import pytest

from devstack.stack import variables
from devstack.tcp_ports import free_port
from operations.verify.checks.sagas import NEVER_RAN
from operations.verify.report import CHECKS
from operations.verify.verification import verify
from runtime.process.settings import Settings
from tests.support.harness.forked_process import start_python
from tests.support.harness.redis_faults import key
from tests.support.harness.verified_system import CHEQUE, System
from tests.support.ledger.stubs import types

VIEWS = 12
"""Two of each of five cheques, and one of each of two accounts."""


async def test_a_system_at_rest_is_clean(system: System) -> None:
    report = await system.verify()
    assert (report.problems, report.notes) == ([], [NEVER_RAN])
    assert report.counts["streams"] == report.counts["snapshots"] == 7
    assert report.counts["events"] == report.counts["messages"] == report.counts["history"] == 16
    assert report.counts["views"] == VIEWS
    assert report.counts["indexes"] == 23
    assert (report.counts["requests"], report.counts["outbox"]) == (13, 16)


async def test_the_text_has_a_line_for_each_check(system: System) -> None:
    await system.change_view(CHEQUE, "c-2", state=types.Cheque.STATE_WRITTEN)
    lines = (await system.verify()).to_text().splitlines()
    assert [line.split()[0] for line in lines[: len(CHECKS)]] == list(CHECKS)
    assert lines[0] == "events          16 in 7 streams: versions without gaps"
    assert lines[6] == f"views           {VIEWS} views, 0 archived: 1 finding"
    assert lines[-1] == ("view ledger.cheque c-2: state is STATE_WRITTEN, expected STATE_VOIDED (version 3)")


async def test_the_json_is_one_object(system: System) -> None:
    await system.redis.zrem(key("change_feed", "account/a-1"), "c-2")
    report = json.loads((await system.verify()).to_json())
    assert (report["clean"], report["found"]) == (False, {"change_feeds": 1})
    assert report["findings"] == [
        {
            "check": "change_feeds",
            "subject": key("change_feed", "account/a-1"),
            "text": "c-2 is missing",
        }
    ]
    assert report["counted"]["events"] == 16


async def test_findings_beyond_the_limit_are_counted(system: System) -> None:
    for number in range(1, 6):
        await system.redis.hset(CHEQUE.key(f"c-{number}"), "state", "x")
    report = await verify(system.settings, max_findings=2)
    assert report.findings["views"] == 5
    assert report.to_text().splitlines()[-1] == "and 3 more findings; --findings shows more of them"


async def diptych_verify(settings: Settings, *arguments: str) -> tuple[int, str, str]:
    """Return the exit code, stdout and stderr."""
    program = Path(sys.executable).with_name("diptych")
    environment = {**os.environ, **variables(settings)}
    process = await start_python(str(program), "verify", *arguments, environment=environment)
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_exit_code_shows_drift(system: System) -> None:
    code, out, err = await diptych_verify(system.settings)
    assert (code, err) == (0, "")
    assert out.startswith("events          16 in 7 streams: versions without gaps\n")
    await system.change_view(CHEQUE, "c-2", state=types.Cheque.STATE_WRITTEN)
    code, out, err = await diptych_verify(system.settings, "--within", "5s", "--json")
    assert (code, err) == (1, "")
    assert json.loads(out)["found"] == {"views": 1}


@pytest.mark.parametrize("setting", ["database_url", "nats_url", "redis_url"])
async def test_an_unreachable_server_is_one_line_and_exit_code_2(system: System, setting: str) -> None:
    unreachable = f"{getattr(system.settings, setting).partition(':')[0]}://127.0.0.1:{free_port()}"
    code, out, err = await diptych_verify(system.settings.model_copy(update={setting: unreachable}))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("cannot verify: ")
