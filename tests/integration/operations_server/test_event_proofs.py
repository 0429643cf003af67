"""A running operations server seals what is recorded, and proves single events to who may see them."""

import asyncio
from pathlib import Path

import asyncpg
import pytest
from diptych.operations.v1.operations_service_pb2 import GetEventProofRequest, GetStatusRequest
from diptych_client import verify_event_proof

from command_server.postgres.event_store import PostgresEventStore
from devstack.stack import Stack
from operations.keys import read_public_keys
from tests.support.builders.requests import group_commit, request
from tests.support.harness.caller import Caller
from tests.support.harness.waiting import until
from tests.support.ledger.rules.messages import Deposit


@pytest.fixture
async def recorded(database_url: str) -> None:
    """An event that was recorded before the operations server started."""
    store = PostgresEventStore(database_url)
    commit = group_commit(store)
    writer = asyncio.create_task(commit.run())
    await commit.execute(request(Deposit("a", 5)))
    commit.close()
    await writer
    await store.close()


async def test_an_event_is_sealed_and_proved(
    recorded: None, stack: Stack, operator: Caller, confidant: Caller
) -> None:
    connection = await asyncpg.connect(stack.settings.database_url)

    async def is_sealed() -> bool:
        return bool(await connection.fetchval("SELECT count(*) FROM audit_segments WHERE record = 'events'"))

    await until(is_sealed)
    await connection.close()
    wanted = GetEventProofRequest(stream="ledger.account.a", version=1)
    proof = (await confidant.query(wanted)).proof
    public_keys = await asyncio.to_thread(read_public_keys, Path(stack.settings.keys))
    verify_event_proof(proof, public_keys)
    assert await operator.rejection_reason(wanted) == "SCOPE_MISSING"
    status = (await operator.query(GetStatusRequest())).status
    assert not [finding for finding in status.findings if "sealed" in finding]
