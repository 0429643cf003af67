"""The sealer: writes checkpoints over what has been recorded, twice a minute.

How it works. One process does it, the holder of a lease. A round reads the newest key of each record, and
waits for all transactions that were writing at that moment: then no row can appear up to these keys
(`operations_server.records.settled`). It writes checkpoints until they reach the keys, each over at most
MAX_ROWS rows of a record. A checkpoint has the next number, so that two sealers could not both write it. A
round that fails changes nothing, and the next one begins where the last checkpoint ends.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from time import time
from typing import Any, NamedTuple, NoReturn

from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.audit.checkpoint import Checkpoint, Segment
from contracts.audit.merkle import complete_subtrees, compute_root, join_subtrees, list_subtrees
from contracts.key_ring import Purpose
from contracts.signed_tokens import GetKeyRing
from operations_server.postgres.schema import SEALER_ROLE
from operations_server.records.database import FAILURES, Driver, connect
from operations_server.records.settled import await_writers
from runtime.audit.marks import encode_marks
from runtime.audit.records import RECORDS, TABLES, Record
from runtime.audit.rows import read_rows
from runtime.audit.subtrees import read_subtrees
from runtime.leader_lease import Lease
from runtime.postgres import create_engine
from runtime.process import logs

INTERVAL = 20.0
"""Seconds between rounds. What is recorded is sealed after twice that at the latest."""
MAX_ROWS = 20_000
"""Rows of a segment: some 10 MB in memory."""
MAX_WAIT = 15.0
"""Seconds to wait for transactions to end; no process of ours has longer ones."""
STATEMENT_TIMEOUT = 20.0

READ_STATE = "SELECT now() AS now, (SELECT incarnation::text FROM relay_state WHERE id = 1) AS incarnation"
READ_SEALED = """
SELECT record, coalesce((
  SELECT until FROM audit_segments s WHERE s.record = r.record ORDER BY until DESC LIMIT 1
), 0) AS until FROM unnest($1::text[]) AS r(record)
"""
READ_LAST = "SELECT number, subtrees[1] AS leaf FROM audit_checkpoints ORDER BY number DESC LIMIT 1"
INSERT_CHECKPOINT = """
INSERT INTO audit_checkpoints (number, entry, root, key_id, signature, subtrees)
VALUES ($1, $2, $3, $4, $5, $6)
"""
INSERT_SEGMENT = """
INSERT INTO audit_segments (record, after, until, checkpoint, row_count, root, keys, marks)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
MARK_SEALED = "UPDATE audit_sealer SET sealed_at = $1 WHERE id = 1"

log = logs.get_logger(__name__)


def create_sealer_engine(database_url: str) -> AsyncEngine:
    """Return connections in the role of the sealer."""
    session = {
        "role": SEALER_ROLE,
        "statement_timeout": str(int(STATEMENT_TIMEOUT * 1000)),
        "idle_in_transaction_session_timeout": "10s",
        "lock_timeout": "1s",
        "jit": "off",
        "synchronous_commit": "on",  # a sealed row must not be lost in a crash while its seal is not
    }
    return create_engine(database_url, session=session, pool_size=3, command_timeout=STATEMENT_TIMEOUT + 1.0)


class _End(NamedTuple):
    """The newest key of a record, and whether no later one will come."""

    key: int
    is_final: bool


async def _read_end(driver: Driver, record: Record) -> _End:
    ((key, is_final),) = await driver.fetch(record.newest)
    return _End(int(key), is_final)


class Sealer:
    """Writes checkpoints.

    Args:
        engine: in the role of the sealer.
        get_ring: returns the current keys.
    """

    def __init__(self, engine: AsyncEngine, get_ring: GetKeyRing) -> None:
        self._engine = engine
        self._get_ring = get_ring
        self._lease = Lease(engine, lambda: True, table="audit_sealer")

    async def run(self) -> NoReturn:
        """Seal whenever this process holds the lease, until cancelled."""
        await self._lease.run_as_leader(self._run_rounds)

    async def close(self) -> None:
        await self._lease.release()
        await self._engine.dispose()

    async def _run_rounds(self) -> NoReturn:
        failures = logs.RepeatedErrors(log, "Sealing failed")
        while True:
            try:
                await self.seal()
                failures.reset()
            except (*FAILURES, LookupError) as error:
                failures.report(error)
            await asyncio.sleep(INTERVAL)

    async def seal(self) -> int:
        """Seal all that is recorded; return the number of checkpoints that were written.

        Raises:
            FAILURES: PostgreSQL failed, or a transaction that writes records does not end.
            LookupError: an earlier checkpoint is missing.
        """
        async with connect(self._engine) as driver:
            state = await driver.fetchrow(READ_STATE)
            assert state is not None  # noqa: S101 - for mypy
            newest = {record.name: await _read_end(driver, record) for record in RECORDS}
            async with asyncio.timeout(MAX_WAIT):
                await await_writers(driver, list(TABLES), ["RowExclusiveLock"])
            written = 0
            while await self._write_next(driver, newest, state["incarnation"], state["now"]):
                written += 1
            await driver.execute(MARK_SEALED, state["now"])
        return written

    async def _write_next(
        self, driver: Driver, newest: Mapping[str, _End], incarnation: str, now: datetime
    ) -> bool:
        """Write the next checkpoint; return whether there is anything to seal."""
        sealed = {row[0]: row[1] for row in await driver.fetch(READ_SEALED, list(newest))}
        segments, contents = list[Segment](), list[tuple[bytes, bytes]]()
        for record in RECORDS:
            after, end = sealed[record.name], newest[record.name]
            if end.key > after:
                rows, until = await read_rows(driver, record, after, end.key, MAX_ROWS)
                if rows or end.is_final:  # a segment without rows is the end of a record
                    root = await asyncio.to_thread(compute_root, [row.leaf for row in rows])
                    segments.append(Segment(record.name, after, until, len(rows), root))
                    contents.append(encode_marks(rows))
        if not segments:
            return False
        last = await driver.fetchrow(READ_LAST)
        number, previous = (last["number"] + 1, last["leaf"]) if last else (1, b"")
        checkpoint = Checkpoint(number, now, incarnation, previous, segments)
        await self._write(driver, checkpoint, contents)
        return True

    async def _write(
        self, driver: Driver, draft: Checkpoint, contents: Sequence[tuple[bytes, bytes]]
    ) -> None:
        number, leaf = draft.number, draft.leaf
        earlier = await read_subtrees(driver, list_subtrees(0, number - 1))
        subtrees = complete_subtrees(leaf, number, earlier.__getitem__)
        whole = {(level, number): root for level, root in enumerate(subtrees)} | earlier
        root = join_subtrees([whole[subtree] for subtree in list_subtrees(0, number)])
        key = self._get_ring().find_signing_key(Purpose.SEAL, time())
        values: dict[str, Any] = {"root": root, "key_id": key.id}
        checkpoint = Checkpoint(
            number, draft.time, draft.incarnation, draft.previous, draft.segments, **values
        )
        signature = key.sign(checkpoint.to_signed())
        async with driver.transaction():
            await driver.execute(
                INSERT_CHECKPOINT, number, draft.to_entry(), root, key.id, signature, subtrees
            )
            await driver.executemany(
                INSERT_SEGMENT,
                [
                    (each.record, each.after, each.until, number, each.rows, each.root, *content)
                    for each, content in zip(draft.segments, contents, strict=True)
                ],
            )
