"""A database with records of every kind, and what seals, changes and verifies them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from command_server.postgres.event_store import PostgresEventStore
from operations.audit.findings import Report
from operations.audit.verification import verify
from operations_server.acts import BEGIN, END
from operations_server.audit.sealer import Sealer, create_sealer_engine
from operations_server.stores import create_database
from runtime.grpc.read_table import ReadTable, create_read_engine
from runtime.grpc.recorded_reads import Read
from runtime.grpc.refused_call_table import INSERT as INSERT_REFUSED_CALL
from tests.support.builders.requests import group_commit, request
from tests.support.harness.keys import RING, get_ring
from tests.support.ledger.rules.messages import Deposit, Transfer

PUBLIC_KEYS = {"s": RING.keys["s"].get_public_key()}


class Ledger:
    """Records of a ledger, in PostgreSQL."""

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url
        self.sealer = Sealer(create_sealer_engine(database_url), get_ring)
        self._operations = create_database(database_url)
        self._reads = ReadTable(create_read_engine(database_url))

    async def execute(self, *commands: Any) -> None:
        store = PostgresEventStore(self.database_url)
        commit = group_commit(store)
        writer = asyncio.create_task(commit.run())
        await asyncio.gather(*(commit.execute(request(command)) for command in commands))
        commit.close()
        await writer
        await store.close()

    async def record(self) -> None:
        """Record some rows of every kind."""
        deposits = [Deposit(account, amount) for account in "abc" for amount in (1, 2, 3)]
        await self.execute(*deposits, Transfer("a", "b", 4), Transfer("c", "a", 1_000))
        for number in range(3):
            await self._reads.record(Read("alice", "pat", "/a.B/Get", [f"c-{number}"], None))
        async with self._operations.begin() as connection:
            for method in ("First", "Second", "Third"):
                call = {"method": method, "reason": "SCOPE_MISSING", "caller": "eve", "peer": "p", "calls": 1}
                await connection.execute(INSERT_REFUSED_CALL, call | {"details": '{"a": 1}'})
                act = {"subject": "olga", "on_behalf_of": None, "act": "Skip", "target": "t", "reason": "r"}
                act |= {"request": '{"id": "1"}', "trace_id": None}
                number = await connection.scalar(BEGIN, act)
                await connection.execute(END, {"number": number, "outcome": "DONE", "duration": 5})

    async def execute_as_owner(self, *statements: str) -> None:
        """Change records as their owner, who can also keep triggers from running."""
        connection = await asyncpg.connect(self.database_url)
        await connection.execute("SET session_replication_role = replica")
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    async def fetch(self, statement: str) -> list[Any]:
        connection = await asyncpg.connect(self.database_url)
        rows = await connection.fetch(statement)
        await connection.close()
        return [tuple(row) for row in rows]

    async def verify(self, **options: Any) -> Report:
        return await verify(self.database_url, PUBLIC_KEYS, **options)

    async def find(self, **options: Any) -> list[str]:
        """Return the findings of a verification, as lines."""
        return [finding.to_text() for finding in (await self.verify(**options)).findings]

    async def close(self) -> None:
        await self.sealer.close()
        await self._operations.dispose()
        await self._reads.close()


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    ledger = Ledger(database_url)
    yield ledger
    await ledger.close()


@pytest.fixture
async def sealed(ledger: Ledger) -> Ledger:
    """Records of every kind under two checkpoints."""
    await ledger.record()
    await ledger.sealer.seal()
    await ledger.record()
    await ledger.sealer.seal()
    return ledger
