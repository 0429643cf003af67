"""A system at rest to plant faults in: built by real processes once, restored for every test."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from nats.js import api
from redis.asyncio import Redis

from contracts import streams
from contracts.feed_signatures import SIGNATURE, sign
from contracts.view_layout import View
from devstack.servers import Nats, Valkey
from devstack.stack_kinds import temporary_stack
from operations.verify.report import Report
from operations.verify.verification import verify
from runtime.jetstream import Connection, Message, StreamReader, connect, read_stream_identity
from runtime.jetstream.stream import COMPLETE_KEY, EPOCH_KEY, INCARNATION_KEY, KEYS_KEY
from runtime.process.settings import Settings
from tests.support.harness.caller import Caller
from tests.support.harness.changed_record import ALLOW_CHANGES
from tests.support.harness.jetstream import create_stream
from tests.support.harness.keys import FEED_KEY, get_ring, ring_file
from tests.support.ledger.installation import CONTEXT
from tests.support.ledger.stubs import commands, commands_v2, types

CHEQUE, HISTORY, ACCOUNT = (View.of(each) for each in (types.Cheque, types.ChequeHistory, types.Account))
SCOPE = "ledger.write"


async def run_ledger(caller: Caller) -> None:
    """Write five cheques and send every other command of the ledger once or more."""
    for request in (
        commands_v2.WriteChequeRequest(cheque_id="c-1", account_id="a-1", amount=10_050, currency_code="CHF"),
        commands.EndorseChequeRequest(cheque_id="c-1"),
        commands.EndorseChequeRequest(cheque_id="c-1"),
        commands.WriteChequeRequest(cheque_id="c-2", account_id="a-1", amount=999),
        commands.EndorseChequeRequest(cheque_id="c-2"),
        commands.VoidChequeRequest(cheque_id="c-2", reason="changed my mind"),
        commands.WriteChequeRequest(cheque_id="c-3", account_id="a-1", amount=5),
        commands.CashChequeRequest(cheque_id="c-3"),
        commands_v2.WriteChequeRequest(cheque_id="c-4", account_id="a-2", amount=7, currency_code="EUR"),
        commands.WriteChequeRequest(cheque_id="c-5", account_id="a-2", amount=999),
        commands.DepositRequest(account_id="a-1", amount=50_000),
        commands.CashChequeRequest(cheque_id="c-1"),
        commands.TransferRequest(account_id="a-1", payee_id="a-2", amount=30),
    ):
        await caller.execute(request)


Stored = tuple[str, dict[str, str], bytes]
"""A message: subject, headers, data."""


@dataclass
class Origin:
    """The contents of all servers of a system at rest."""

    database: str
    epoch: str
    incarnation: str
    messages: list[Stored]
    keys: dict[bytes, bytes] = field(default_factory=dict)
    """Every key in Redis, with its value as of DUMP."""


@dataclass
class System:
    """A restored copy of the origin, to plant faults in."""

    settings: Settings
    redis: Redis
    connection: Connection
    origin: Origin

    async def verify(self, within: float = 20.0) -> Report:
        return await verify(self.settings, within=within, max_findings=1_000)

    async def find_problems(self, within: float = 20.0) -> list[str]:
        report = await self.verify(within)
        assert report.findings.total() == len(report.problems)
        return [f"{problem.subject}: {problem.text}" for problem in report.problems]

    async def sql(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.settings.database_url)
        try:
            await connection.execute(ALLOW_CHANGES)
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    async def publish(self, subject: str, headers: dict[str, str], data: bytes) -> None:
        """Publish a message as a relay does: with a signature for its place."""
        sequence = (await self.connection.js.stream_info(streams.JETSTREAM)).state.last_seq + 1
        unsigned = {name: value for name, value in headers.items() if name != SIGNATURE}
        signature = sign(FEED_KEY, self.origin.epoch, sequence, subject, unsigned, data)
        await self.connection.js.publish(subject, data, headers={**unsigned, SIGNATURE: signature})

    async def restream(self, change: Callable[[list[Stored]], Sequence[Stored]] = lambda same: same) -> None:
        """Recreate the stream with the same epoch and changed messages."""
        metadata = {
            EPOCH_KEY: self.origin.epoch,
            INCARNATION_KEY: self.origin.incarnation,
            COMPLETE_KEY: "true",
            KEYS_KEY: FEED_KEY.id,
        }
        config = api.StreamConfig(
            name=streams.JETSTREAM, subjects=[streams.SUBJECTS], allow_direct=True, metadata=metadata
        )
        for stream in await self.connection.js.streams_info():
            await self.connection.js.delete_stream(stream.config.name or "")
        await create_stream(self.connection.js, config)
        for message in change(list(self.origin.messages)):
            await self.publish(*message)

    async def change_view(self, view: View, view_id: str, **fields: Any) -> None:
        """Set fields of a view's message."""
        key = view.key(view_id)
        message: Any = view.message.FromString(await self.redis.hget(key, "data") or b"")  # type: ignore[arg-type]
        for name, value in fields.items():
            setattr(message, name, value)
        await self.redis.hset(key, "data", message.SerializeToString())


@asynccontextmanager
async def restore_system(
    origin: Origin, database_url: str, nats_url: str, redis_url: str
) -> AsyncIterator[System]:
    """Restore stream and Redis; the database is a copy of the origin's already."""
    settings = Settings(
        contexts=CONTEXT,
        database_url=database_url,
        nats_url=nats_url,
        redis_url=redis_url,
        keys=str(ring_file()),
    )
    async with Redis.from_url(redis_url) as redis, await connect(nats_url, "test", get_ring) as connection:
        await connection.wait_until_connected()
        await redis.flushall()
        for key, value in origin.keys.items():
            await redis.restore(key, 0, value)
        system = System(settings, redis, connection, origin)
        await system.restream()
        yield system


async def clear_servers(nats_server: Nats, redis_server: Valkey) -> None:
    """Delete the streams and keys of earlier tests."""
    async with await connect(nats_server.url, "test", get_ring) as connection:
        await connection.wait_until_connected()
        for stream in await connection.js.streams_info():
            await connection.js.delete_stream(stream.config.name or "")
    async with Redis.from_url(redis_server.url) as redis:
        await redis.flushall()


async def build_origin(folder: Path, database_url: str, nats_url: str, redis_url: str) -> Origin:
    """Run the ledger in real processes; return the contents of all servers once verify finds nothing."""
    stack = temporary_stack(
        folder,
        contexts=CONTEXT,
        database_url=database_url,
        nats_url=nats_url,
        redis_url=redis_url,
        query_servers=0,
    )
    async with stack:
        caller = Caller(stack, SCOPE)
        await run_ledger(caller)
        await caller.close()
        report = await verify(stack.settings, within=30)
        assert report.clean, report.to_text()
    origin = Origin(database_url, "", "", [])
    async with Redis.from_url(redis_url) as redis, await connect(nats_url, "test", get_ring) as connection:
        await connection.wait_until_connected()
        async for key in redis.scan_iter(count=1_000):
            origin.keys[key] = await redis.dump(key)  # type: ignore[assignment]
        origin.epoch, origin.incarnation, messages = await _read_messages(connection)
        origin.messages = [(m.subject, _get_own_headers(m), m.data) for m in messages]
    return origin


def _get_own_headers(message: Message) -> dict[str, str]:
    """Return the headers without those that NATS adds."""
    return {name: value for name, value in message.headers.items() if not name.startswith("Nats-")}


async def _read_messages(connection: Connection) -> tuple[str, str, list[Message]]:
    stream = await read_stream_identity(connection.js)
    assert stream is not None
    reader = await StreamReader.open(connection, stream.epoch, 1)
    messages: list[Message] = []
    async with asyncio.timeout(20):
        while len(messages) < stream.messages:
            messages += await reader.read_batch(1_000, 5)
    await reader.close()
    return stream.epoch, stream.incarnation, messages
