"""`diptych housekeeping` as a process: killed, stopped, and started twice."""

import asyncio
import os
import signal
from asyncio.subprocess import Process
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from command_server.postgres.event_store import session_settings
from command_server.postgres.schema import HOUSEKEEPING_ROLE
from runtime.postgres import create_engine
from runtime.process.lifecycle import cancel_and_wait
from tests.integration.housekeeping.conftest import House
from tests.support.harness.forked_process import start_python
from tests.support.harness.waiting import until

OLD = timedelta(days=40)
MANY = 100_000


async def start(house: House, *arguments: str, **variables: str) -> Process:
    environment = {**os.environ, "DIPTYCH_DATABASE_URL": house.database_url, **variables}
    return await start_python("-m", "operations.cli", "housekeeping", *arguments, environment=environment)


async def finish(process: Process) -> tuple[int | None, str, str]:
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, out.decode(), err.decode()


async def wait_for_first_batch(house: House) -> None:
    async def has_begun() -> bool:
        return await house.count("requests") < MANY

    await until(has_begun)


@pytest.mark.long
async def test_a_killed_round_is_continued_by_the_next(house: House) -> None:
    await house.record_requests(MANY, OLD)
    process = await start(house)
    await wait_for_first_batch(house)
    process.kill()
    await process.wait()
    remaining = await house.count("requests")
    assert 0 < remaining < MANY
    code, _, error = await finish(await start(house))  # the dead process's lease lasts some seconds
    assert code == 0 or error == "Error: housekeeping: another process does it at the moment\n"

    async def has_finished() -> bool:
        return (await finish(await start(house)))[0] == 0

    await until(has_finished)
    assert await house.count("requests") == 0


async def test_a_stopped_process_ends_after_its_batch(house: House) -> None:
    await house.record_requests(MANY, OLD)
    process = await start(house, "--every", "1h")
    await wait_for_first_batch(house)
    process.send_signal(signal.SIGTERM)
    code, out, error = await finish(process)
    assert (code, error) == (0, "")
    assert out.endswith("stopped; the next round continues\n")
    assert (await finish(await start(house)))[0] == 0  # the lease was released
    assert await house.count("requests") == 0


async def test_rounds_are_repeated(house: House) -> None:
    process = await start(house, "--every", "1s")
    await until(lambda: _has_run(house))
    await house.record_requests(10, OLD)
    await until(lambda: _is_empty(house))
    process.send_signal(signal.SIGTERM)
    assert (await finish(process))[0] == 0


async def _has_run(house: House) -> bool:
    return await house.count("retention") > 0


async def _is_empty(house: House) -> bool:
    return await house.count("requests") == 0


async def test_a_second_process_says_that_another_is_at_work(house: House) -> None:
    async def hold_lease() -> None:
        while True:
            await house.connection.execute(
                "UPDATE housekeeping SET leader = 'other', lease_until = now() + interval '5 seconds'"
            )
            await asyncio.sleep(1)

    await house.record_requests(1, OLD)
    other = asyncio.create_task(hold_lease())
    code, out, error = await finish(await start(house))
    await cancel_and_wait(other)
    assert (code, out, error) == (1, "", "Error: housekeeping: another process does it at the moment\n")
    assert await house.count("requests") == 1


async def test_an_interval_of_nothing_is_refused(house: House) -> None:
    code, _, error = await finish(await start(house, "--every", "0s"))
    assert (code, error.splitlines()[-1]) == (
        2,
        "Error: Invalid value for --every: an interval is at least 1s",
    )


@pytest.mark.parametrize("value", ["0s", "30", "never"])
async def test_a_bad_retention_is_one_line(house: House, value: str) -> None:
    code, _, error = await finish(await start(house, DIPTYCH_KEEP_REQUESTS=value))
    assert code == 2
    assert error.startswith("settings: DIPTYCH_KEEP_REQUESTS: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM events",
        "DELETE FROM streams",
        "DELETE FROM audit",
        "DELETE FROM outbox",
        "DELETE FROM sagas",
        "UPDATE requests SET outcome = 'ACCEPTED'",
        "UPDATE sagas SET ended = true",
        "SELECT detach_month('audit', '2026-01-01')",
        "SELECT make_month('events', '2026-01-01')",
    ],
)
async def test_its_role_can_do_no_more_than_its_job(database_url: str, statement: str) -> None:
    engine = create_engine(database_url, session=session_settings(HOUSEKEEPING_ROLE))
    try:
        async with engine.connect() as connection:
            with pytest.raises(DBAPIError, match=r"permission denied|not a table in partitions"):
                await connection.execute(text(statement))
    finally:
        await engine.dispose()
