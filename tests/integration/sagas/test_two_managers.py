"""Two managers on a saga of two streams, killed at random moments: no event is lost or delivered twice."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest
from sqlalchemy import text

from contracts import streams
from process_manager.deadlines.deadlines import Deadlines
from process_manager.engine import Engine
from process_manager.feeds.event_consumer import EventConsumer
from process_manager.feeds.stream_reads import read_stream_end_from, read_stream_ends_from, read_stream_from
from process_manager.feeds.stream_replayer import StreamReplayer
from process_manager.leases import Leases
from process_manager.postgres.store import SagaStore
from process_manager.queries.feed_reader import FeedReader
from process_manager.queries.freshness import Freshness
from process_manager.queries.saga_reader import SagaReader
from process_manager.queries.saga_records import SagaFilter
from runtime import jetstream
from runtime.grpc.rpc_error import RpcError
from tests.support.harness.account_watch import ACCOUNT_WATCH, Watch
from tests.support.harness.feed import Writer, read_identity, relay, wait_until_complete, writer
from tests.support.harness.freshness import make_waits
from tests.support.harness.keys import TOKENS, get_ring, mint_token
from tests.support.harness.waiting import until
from tests.support.ledger.stubs import events, events_v2

APPEND = text("""
WITH new AS (
    INSERT INTO events (stream, version, type, data, metadata, recorded_at)
    SELECT stream, version, type, data, '{}', now()
    FROM unnest(CAST(:streams AS text[]), CAST(:versions AS bigint[]), CAST(:types AS text[]),
        CAST(:data AS bytea[])) AS e (stream, version, type, data)
    RETURNING position
)
INSERT INTO outbox (position) SELECT position FROM new
""")
PAYMENTS, CHEQUES = 3, 4
"""Events of each account's own stream, and cheques written against it."""


async def append(writer: Writer, account: str, number: int) -> None:
    """Commit a payment of an account together with a cheque against it, each under its own stream."""
    paid = events.Paid(account_id=account, amount=1)
    cheque = events_v2.ChequeWritten(cheque_id=f"{account}-{number}", account_id=account, amount=1)
    recorded = [(f"ledger.cheque.{account}-{number}", 1, cheque)]
    if number <= PAYMENTS:
        recorded.append((f"ledger.account.{account}", number, paid))
    async with writer.begin() as transaction:
        await transaction.execute(
            APPEND,
            {
                "streams": [stream for stream, _, _ in recorded],
                "versions": [version for _, version, _ in recorded],
                "types": [message.DESCRIPTOR.full_name for _, _, message in recorded],
                "data": [message.SerializeToString() for _, _, message in recorded],
            },
        )


@asynccontextmanager
async def run_manager(database_url: str, nats_url: str) -> AsyncIterator[None]:
    """Run a manager without a dispatcher, killed in the middle of its work when the block ends."""
    store, stopping = SagaStore(database_url), asyncio.Event()
    leases = Leases(store, "ledger")
    async with await jetstream.connect(nats_url, "manager", get_ring) as nats:
        engine = Engine(store, [ACCOUNT_WATCH], read_stream_from(nats))
        replayer = StreamReplayer(engine, leases)
        consumer = EventConsumer(nats, engine, store, leases, replayer, Deadlines(engine, store))
        tasks = [asyncio.create_task(part.run(stopping)) for part in (leases, consumer, replayer)]
        yield
        stopping.set()  # asyncio.wait_for of Python 3.11 may swallow a cancellation
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await leases.leave()  # as if they had expired
    await store.close()


async def assert_fresh(store: SagaStore, connection: jetstream.Connection) -> None:
    """Assert that a query waits for a cheque's event if it is missing, and for no other."""
    incarnation = (await read_identity(connection)).incarnation

    async def read_incarnation() -> str:
        return incarnation

    freshness = Freshness(
        TOKENS, make_waits(), FeedReader(store.engine), read_incarnation, read_stream_end_from(connection)
    )
    recorded, missing = (
        mint_token(incarnation, {"ledger.cheque.account-0-1": version}) for version in (1, 2)
    )
    await freshness.wait_for([ACCOUNT_WATCH], recorded, 20)
    with pytest.raises(RpcError, match="have not processed"):
        await freshness.wait_for([ACCOUNT_WATCH], missing, 0)


async def assert_ends_are_read(connection: jetstream.Connection, events: int) -> None:
    """Assert that the last message of each partition is found, and so the last one of all."""
    subjects = [
        streams.partition_subject(partition, type_)
        for partition in range(streams.PARTITIONS)
        for type_ in ("ledger.account", "ledger.cheque")
    ]
    ends = await read_stream_ends_from(connection)(subjects)
    found = [end for end in ends.values() if end is not None]
    assert max(end.sequence for end in found) == events
    assert all(end.version for end in found)


async def read_watches(reader: SagaReader) -> dict[str, Watch]:
    rows = await reader.read_page([ACCOUNT_WATCH.name], SagaFilter(), limit=1000)
    return {row.id: msgspec.convert(row.state, Watch) for row in rows}


@pytest.mark.parametrize(("accounts", "kills"), [(40, 4), pytest.param(300, 30, marks=pytest.mark.long)])
async def test_events_of_two_streams_are_delivered_once_in_their_order(
    store: SagaStore, database_url: str, nats_url: str, accounts: int, kills: int
) -> None:
    chance = random.Random(seed := secrets.randbits(32))
    print(f"seed {seed}")
    names = [f"account-{number}" for number in range(accounts)]
    numbers = range(1, CHEQUES + 1)
    reader = SagaReader(store.engine)

    async def write(events: Writer) -> None:
        for number in numbers:
            for name in names:
                await append(events, name, number)

    async def restart_managers() -> None:
        for _ in range(kills // 2):
            async with run_manager(database_url, nats_url):
                await asyncio.sleep(chance.uniform(0.2, 1.0))  # the moment of the kill, not a wait

    async def everything_is_delivered() -> bool:
        received: Sequence[Watch] = list((await read_watches(reader)).values())
        return sum(len(watch.received) for watch in received) >= accounts * (PAYMENTS + CHEQUES)

    async with writer(database_url) as events, relay(database_url, nats_url) as running:
        await running.connection.wait_until_connected()
        await wait_until_complete(running.connection)
        await asyncio.gather(write(events), restart_managers(), restart_managers())
        async with run_manager(database_url, nats_url), run_manager(database_url, nats_url):
            await until(everything_is_delivered, 30)
            await assert_fresh(store, running.connection)
            await assert_ends_are_read(running.connection, accounts * (PAYMENTS + CHEQUES))
    watches = await read_watches(reader)
    for name in names:
        assert watches[name].versions_of(f"ledger.account.{name}") == list(range(1, PAYMENTS + 1))
        for number in numbers:
            assert watches[name].versions_of(f"ledger.cheque.{name}-{number}") == [1]
    async with store.engine.connect() as connection:
        steps = await connection.scalar(text("SELECT count(*) FROM saga_steps"))
    assert steps == accounts * CHEQUES
