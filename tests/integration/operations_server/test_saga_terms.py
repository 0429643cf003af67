"""The index of terms never misses an event, whatever commits while it is built."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator

import asyncpg
import pytest
from diptych.ordering.v2 import events_pb2 as events

from operations_server.records.database import Database
from operations_server.sagas import term_index
from operations_server.sagas.term_index import TermSegments
from operations_server.sagas.term_search import TermSearch
from operations_server.sagas.terms import SagaTerms
from process_manager.sagas.fulfilment import FULFILMENT

SEGMENT = 40
INSERT = """
INSERT INTO events (stream, version, type, data, metadata, recorded_at)
VALUES ('ordering.order.' || $1, 1, 'diptych.ordering.v2.OrderPlaced', $2, '{}', now()) RETURNING position
"""
TERMS = SagaTerms([FULFILMENT])


@pytest.fixture
async def database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    monkeypatch.setattr(term_index, "SEGMENT", SEGMENT)
    database = Database(database_url)
    yield database
    await database.close()


async def insert(connection: "asyncpg.Connection[asyncpg.Record]", id_: str, customer: str) -> int:
    event = events.OrderPlaced(order_id=id_, customer_id=customer)
    return int(await connection.fetchval(INSERT, id_, event.SerializeToString()))


async def find(database: Database, term: str) -> list[str]:
    search = TermSearch(database, TERMS)
    return [
        id_ for found in [each async for each in search.search(term, None)] for _, (_, id_) in found.instances
    ]


async def build(database: Database) -> int:
    async with database.connect() as driver:
        return await TermSegments(TERMS).build(driver, max_age_passed=False)


async def test_a_segment_waits_for_transactions_that_began_before(
    database: Database, database_url: str
) -> None:
    late, others = [await asyncpg.connect(database_url) for _ in range(2)]
    transaction = late.transaction()
    await transaction.start()
    await insert(late, "late", "ada")
    for number in range(SEGMENT):
        await insert(others, f"o-{number}", "bob")
    task = asyncio.create_task(build(database))
    done, _ = await asyncio.wait([task], timeout=0.3)
    assert not done, "it waits for the transaction"
    await transaction.commit()
    assert await task == SEGMENT
    assert await find(database, "ada") == ["late"]
    assert len(await find(database, "bob")) == SEGMENT
    assert await build(database) == 0, "too few events are left"
    await late.close()
    await others.close()


async def test_searches_equal_a_full_scan_while_orders_are_placed_and_segments_built(
    database: Database, database_url: str
) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    placed = dict[int, tuple[str, str]]()
    writing = True

    async def write(writer: int) -> None:
        connection = await asyncpg.connect(database_url)
        for number in range(60):
            customer, id_ = f"c-{chance.randrange(9)}", f"o-{writer}-{number}"
            async with connection.transaction():
                position = await insert(connection, id_, customer)
                await asyncio.sleep(chance.choice((0, 0, 0.01)))
            placed[position] = (customer, id_)
        await connection.close()

    async def build_segments() -> None:
        while writing:
            await build(database)
            await asyncio.sleep(0)

    async def search() -> None:
        while writing:
            customer = f"c-{chance.randrange(9)}"
            before = {id_ for known, id_ in placed.values() if known == customer}
            found = await find(database, customer)
            assert before <= set(found)
            assert len(found) == len(set(found))

    background = [asyncio.create_task(build_segments()), asyncio.create_task(search())]
    await asyncio.gather(*(write(writer) for writer in range(4)))
    writing = False
    await asyncio.gather(*background)
    while await build(database):
        pass
    for customer in {customer for customer, _ in placed.values()}:
        expected = [id_ for _, (known, id_) in sorted(placed.items(), reverse=True) if known == customer]
        assert await find(database, customer) == expected
