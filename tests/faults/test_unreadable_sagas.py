"""Rows of sagas that no release can read, in a running system: all others go on, and nothing is lost."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from devstack.tcp_ports import free_port
from operations.processes import PROCESS_MANAGER
from tests.support.harness.command_line import diptych
from tests.support.harness.invariants import verify_stack
from tests.support.harness.waiting import until
from tests.support.ledger.clerk import Clerk, cheque_of
from tests.support.ledger.installation import CONTEXT, installed

SAGA = "ledger.collection"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """A stack whose sagas reach no ledger, so that they stay open."""
    with installed():
        stack = temporary_stack(tmp_path, contexts=CONTEXT, operations_servers=1)
        targets = f"{CONTEXT}=127.0.0.1:{free_port()}"
        stack.add(PROCESS_MANAGER, environment={"DIPTYCH_COMMAND_TARGETS": targets})
        async with stack:
            yield stack


async def execute(stack: Stack, statement: str, *arguments: object) -> None:
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        await connection.execute(statement, *arguments)
    finally:
        await connection.close()


async def is_listed(stack: Stack, id_: str, *texts: str) -> bool:
    _, out, _ = await diptych(stack, "sagas", "list", "--saga", SAGA, "--ended", "--limit", "0", "--json")
    return any(id_ in line and all(text in line for text in texts) for line in out.splitlines())


async def counts(stack: Stack, unreadable: int) -> bool:
    """Return whether `diptych status` counts this many unreadable sagas."""
    _, out, _ = await diptych(stack, "status", "--json")
    return bool(sum(each["unreadable"] for each in json.loads(out)["sagas"]) == unreadable)


@pytest.mark.long
async def test_unreadable_sagas_stop_no_other_and_continue_when_they_can_be_read(stack: Stack) -> None:
    clerk = Clerk(stack)
    ids = [(await clerk.write(cheque_of("ada"))).aggregate_id for _ in range(20)]
    for id_ in ids:
        await until(lambda id_=id_: is_listed(stack, id_, "CASHING"))  # type: ignore[misc]
    bad = set(ids[::4])
    await execute(stack, "ALTER TABLE sagas ADD COLUMN kept jsonb")
    await execute(stack, "UPDATE sagas SET kept = state, state = '[]' WHERE id = ANY ($1)", list(bad))
    for id_ in ids:
        await clerk.endorse(id_)
    more = [(await clerk.write(cheque_of("bob"))).aggregate_id for _ in range(20)]
    for id_ in more:
        await until(lambda id_=id_: is_listed(stack, id_, "CASHING"))  # type: ignore[misc]
    for id_ in bad:
        await until(lambda id_=id_: is_listed(stack, id_, "its row cannot be read"))  # type: ignore[misc]
        code, _, err = await diptych(stack, "sagas", "retry", id_, "--reason", "a test")
        assert (code, "SAGA_UNREADABLE" in err, "its row cannot be read" in err) == (1, True, True), err
    assert await counts(stack, len(bad))
    report = await verify_stack(stack)
    assert {problem.subject for problem in report.problems} == {f"saga {SAGA} {id_}" for id_ in bad}
    await execute(stack, "UPDATE sagas SET state = kept WHERE kept IS NOT NULL")
    await until(lambda: counts(stack, 0))
    report = await verify_stack(stack)
    assert report.clean, report.to_text()
    await clerk.close()
