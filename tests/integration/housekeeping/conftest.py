"""A database with rows of any age, and housekeeping on it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from operations.housekeeping.command import keep_house
from operations_server.audit.sealer import Sealer, create_sealer_engine
from runtime.process.settings import Settings
from tests.support.builders.request_ids import request_id_of
from tests.support.harness.keys import get_ring

INSERT_REQUEST = """
INSERT INTO requests (caller, request_id, type, hash, outcome, receipt, recorded_at)
VALUES ('alice', $1, 'acme.ledger.v1.Deposit', '', 'ACCEPTED', '{}', $2)
"""
INSERT_MANY = """
INSERT INTO requests (caller, request_id, type, hash, outcome, receipt, recorded_at)
SELECT 'alice', gen_random_uuid(), 'acme.ledger.v1.Deposit', '', 'ACCEPTED', '{}', $1
FROM generate_series(1, $2)
"""
INSERT_AUDIT = """
INSERT INTO audit (recorded_at, caller, request_id, type, outcome, stream, duration_us)
VALUES ($1, 'alice', gen_random_uuid(), 'acme.ledger.v1.Deposit', 'ACCEPTED', 'ledger.account.a', 1)
"""


@dataclass
class House:
    """One database: its rows, and rounds of housekeeping."""

    database_url: str
    connection: Any
    lines: list[str] = field(default_factory=list)

    async def record_request(self, age: timedelta, id_age: timedelta | None = None) -> str:
        """Insert the answer to a request; return its id, of version 7 and of this age."""
        now = datetime.now(UTC)
        request_id = request_id_of(now - (age if id_age is None else id_age))
        await self.connection.execute(INSERT_REQUEST, request_id, now - age)
        return request_id

    async def record_requests(self, count: int, age: timedelta) -> None:
        await self.connection.execute(INSERT_MANY, datetime.now(UTC) - age, count)

    async def record_audit(self, *times: datetime) -> None:
        for time in times:
            await self.connection.execute(INSERT_AUDIT, time)

    async def keep(self, *, dry_run: bool = False, unexported: bool = True, **settings: Any) -> int:
        """Do one round; its lines go to `lines`."""
        self.lines.clear()
        await self.seal()
        chosen = Settings(database_url=self.database_url, **settings)
        return await keep_house(
            chosen, None, dry_run, lambda entry: self.lines.append(entry.text), unexported=unexported
        )

    async def seal(self) -> None:
        """Seal all records, as the operations server does."""
        sealer = Sealer(create_sealer_engine(self.database_url), get_ring)
        await sealer.seal()
        await sealer.close()

    def line_of(self, kind: str) -> str:
        return next(line for line in self.lines if line.split()[0] == kind)

    async def count(self, table: str) -> int:
        return int(await self.connection.fetchval(f"SELECT count(*) FROM {table}"))

    async def fetch(self, sql: str, *arguments: Any) -> Sequence[Any]:
        return [tuple(row) for row in await self.connection.fetch(sql, *arguments)]


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    connection = await asyncpg.connect(database_url)
    yield House(database_url, connection)
    await connection.close()
