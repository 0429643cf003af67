"""A recorded outcome that cannot be read fails its own request, not the others of its batch."""

import asyncio

import asyncpg
import pytest

from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.outcomes import Accepted
from command_server.postgres.event_store import PostgresEventStore
from tests.support.builders.requests import group_commit, request
from tests.support.harness.changed_record import ALLOW_CHANGES
from tests.support.ledger.rules.messages import WriteCheque


@pytest.mark.parametrize(
    "change",
    [
        'receipt = NULL, rejection = \'{"kind": "other", "details": {}}\'',
        "receipt = NULL, rejection = '3'",
        "receipt = NULL, rejection = NULL",
    ],
)
async def test_an_unreadable_outcome_fails_its_own_request(database_url: str, change: str) -> None:
    store = PostgresEventStore(database_url)
    commits: GroupCommit = group_commit(store)
    running = asyncio.create_task(commits.run())
    repeated = request(WriteCheque("c-1", "a", 5, "EUR"))
    await commits.execute(repeated)
    connection = await asyncpg.connect(database_url)
    await connection.execute(ALLOW_CHANGES)
    await connection.execute(f"UPDATE requests SET {change}")
    await connection.close()
    others = [request(WriteCheque(f"c-{number}", "a", 5, "EUR")) for number in range(2, 9)]
    results = await asyncio.gather(
        *(commits.execute(each) for each in (repeated, *others)), return_exceptions=True
    )
    assert isinstance(results[0], Exception)
    assert all(isinstance(getattr(result, "outcome", None), Accepted) for result in results[1:])
    commits.close()
    await running
    await store.close()
