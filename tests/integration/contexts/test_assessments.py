"""AssessOrder on the real event store: an answer depends on what was recorded before the order alone."""

import asyncio
from collections.abc import AsyncIterator
from random import Random
from secrets import randbits
from typing import Any

import asyncpg
import pytest
from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v2 import events_pb2 as v2

from command_server.contexts.ordering import CONTEXT
from command_server.contexts.ordering.domain.customer_activity import ORDERS
from command_server.contexts.ordering.domain.messages import ChangeShippingAddress, ConfirmOrder, RejectOrder
from command_server.kernel import index_builder
from command_server.kernel.context import aggregate_types
from command_server.kernel.index_builder import MAX_HISTORY, IndexBuilder
from command_server.kernel.outcomes import Accepted, Rejection
from command_server.kernel.ports import StoreConflict
from tests.support.harness.assessments import (
    Seller,
    address,
    derive_assessments,
    read_assessments,
    run_sellers,
)
from tests.support.harness.changed_record import ALLOW_CHANGES

SIX = [f"o-{number}" for number in range(1, 7)]


@pytest.fixture
async def sellers(database_url: str) -> AsyncIterator[list[Seller]]:
    async with run_sellers(database_url) as sellers:
        yield sellers


async def find_suspects(database_url: str) -> list[str]:
    return [event.order_id for event in await read_assessments(database_url) if event.suspicions]


@pytest.mark.parametrize("order", [SIX, SIX[::-1], [SIX[5], *SIX[:5]], SIX[3:] + SIX[:3]])
async def test_the_sixth_order_is_suspicious_however_late_they_are_assessed(
    sellers: list[Seller], database_url: str, order: list[str]
) -> None:
    for number, order_id in enumerate(SIX):
        await sellers[number % 2].place(order_id)
    for order_id in order:
        await sellers[0].assess(order_id)
    assert await find_suspects(database_url) == ["o-6"]


async def test_of_six_orders_placed_at_once_the_last_by_position_is_suspicious(
    sellers: list[Seller], database_url: str
) -> None:
    await asyncio.gather(*(sellers[number % 2].place(order_id) for number, order_id in enumerate(SIX)))
    await asyncio.gather(*(sellers[number % 2].assess(order_id) for number, order_id in enumerate(SIX)))
    (suspect,) = await find_suspects(database_url)
    assert suspect == list(await derive_assessments(database_url))[-1]


async def test_four_large_orders_at_once_to_a_new_address_are_all_suspicious(
    sellers: list[Seller], database_url: str
) -> None:
    await asyncio.gather(*(sellers[number % 2].place(f"o-{number}", units=4_000) for number in range(4)))
    await asyncio.gather(*(sellers[number % 2].assess(f"o-{number}") for number in range(4)))
    assert sorted(await find_suspects(database_url)) == ["o-0", "o-1", "o-2", "o-3"]


async def test_an_address_is_known_once_an_order_with_it_is_confirmed(
    sellers: list[Seller], database_url: str
) -> None:
    seller = sellers[0]
    await seller.place("rejected", units=4_000)
    await seller.execute(RejectOrder("rejected", "fraud"))
    await seller.place("small", units=40)
    await seller.place("before", units=4_000)
    await seller.execute(ConfirmOrder("small"))
    await seller.place("after", units=4_000)
    await seller.place("others", "c-2", units=4_000)
    await seller.place("elsewhere", street="Side", units=4_000)
    for order_id in ("after", "before", "elsewhere", "rejected"):
        await seller.assess(order_id)
    await seller.assess("others", "c-2")
    assert await find_suspects(database_url) == ["before", "elsewhere", "rejected", "others"]


async def test_the_address_at_the_confirmation_counts(sellers: list[Seller], database_url: str) -> None:
    seller = sellers[0]
    await seller.place("moved")
    await seller.execute(ChangeShippingAddress("moved", "", address("Side")))
    await seller.execute(ConfirmOrder("moved"))
    await seller.place("first", units=4_000)
    await seller.place("second", street="Side", units=4_000)
    for order_id in ("first", "second"):
        await seller.assess(order_id)
    assert await find_suspects(database_url) == ["first"]


async def test_each_version_of_an_order_is_assessed_as_it_was(
    sellers: list[Seller], database_url: str
) -> None:
    seller = sellers[0]
    await seller.place("home")
    await seller.execute(ConfirmOrder("home"))
    await seller.place("o-1", units=4_000)
    await seller.execute(ChangeShippingAddress("o-1", "", address("Side")))
    for version in (2, 1, 2):
        assert isinstance(await seller.assess("o-1", version=version), Accepted)
    found = [(event.order_version, bool(event.suspicions)) for event in await read_assessments(database_url)]
    assert found == [(2, True), (1, False)]


async def test_a_repetition_by_another_caller_records_nothing(
    sellers: list[Seller], database_url: str
) -> None:
    await sellers[0].place("o-1")
    for number, caller in enumerate(("alice", "bob", "alice")):
        outcome = await sellers[number % 2].assess("o-1", caller=caller)
        assert isinstance(outcome, Accepted)
        assert outcome.versions == {"ordering.customer_activity.c-1": 1}
    assert len(await read_assessments(database_url)) == 1


@pytest.mark.parametrize(
    ("order_id", "customer_id", "version", "reason"),
    [
        ("nobody", "c-1", 1, "ORDER_NOT_FOUND"),
        ("o-1", "c-1", 2, "ORDER_NOT_FOUND"),
        ("o-1", "c-2", 1, "ORDER_OF_ANOTHER_CUSTOMER"),
    ],
)
async def test_an_order_that_cannot_be_assessed_is_rejected(
    sellers: list[Seller], order_id: str, customer_id: str, version: int, reason: str
) -> None:
    await sellers[0].place("o-1")
    outcome = await sellers[0].assess(order_id, customer_id, version)
    assert isinstance(outcome, Rejection)
    assert outcome.reason == reason


async def test_an_assessment_waits_for_transactions_with_lower_positions(
    sellers: list[Seller], database_url: str
) -> None:
    for order_id in SIX[:4]:
        await sellers[0].place(order_id)
    await sellers[0].place("other", "c-2")
    slow: Any = await asyncpg.connect(database_url)
    transaction = slow.transaction()
    await transaction.start()  # another server that has taken the position of the fifth order, and no more
    await slow.execute(
        "INSERT INTO events (stream, version, type, data, metadata, recorded_at)"
        " SELECT 'ordering.order.o-5', 1, type, $1, metadata, recorded_at FROM events WHERE stream = $2",
        await read_data(database_url, "ordering.order.other"),
        "ordering.order.o-4",
    )
    await sellers[1].place("o-6")
    assessment = asyncio.create_task(sellers[1].assess("o-6"))
    done, _ = await asyncio.wait([assessment], timeout=0.3)
    assert not done, "it was answered while an order before it was being placed"
    await transaction.commit()
    await slow.close()
    await assessment
    assert await find_suspects(database_url) == ["o-6"]


async def read_data(database_url: str, stream: str) -> bytes:
    """Return the data of an order's first event, as if customer c-1 had placed the order o-5."""
    connection = await asyncpg.connect(database_url)
    data: bytes = await connection.fetchval("SELECT data FROM events WHERE stream = $1", stream)
    await connection.close()
    return data.replace(b"c-2", b"c-1").replace(b"\x05other", b"\x05o-005")


async def test_answers_do_not_depend_on_when_and_in_which_order_they_are_asked(
    sellers: list[Seller], database_url: str
) -> None:
    seed = randbits(32)
    print(f"seed {seed}")
    random, customers = Random(seed), dict[str, str]()

    async def place(order_id: str) -> None:
        customers[order_id] = random.choice(("c-1", "c-2"))
        units, street = random.choice((40, 600, 6_000)), random.choice("ABC")
        await random.choice(sellers).place(order_id, customers[order_id], street, units)
        if random.random() < 0.5:
            await random.choice(sellers).execute(
                random.choice((ConfirmOrder(order_id), RejectOrder(order_id, "no")))
            )

    async def assess(order_id: str) -> None:
        caller = random.choice(("alice", "bob"))
        outcome = await random.choice(sellers).assess(order_id, customers[order_id], caller=caller)
        assert isinstance(outcome, Accepted)

    for first in range(0, 60, 6):
        known = random.sample(sorted(customers), min(3, len(customers)))
        await asyncio.gather(*(place(f"o-{first + number}") for number in range(6)), *map(assess, known))
    await asyncio.gather(*map(assess, random.sample(sorted(customers), len(customers))))
    expected = await derive_assessments(database_url)
    answers = {
        event.order_id: (list(event.recent_order_ids), bool(event.new_address_group_ids))
        for event in await read_assessments(database_url)
    }
    assert answers == expected


async def test_events_of_an_earlier_release_are_indexed(sellers: list[Seller], database_url: str) -> None:
    """An earlier release has recorded orders in version 1 of the event, long ones too, and indexed none."""
    seller = sellers[0]
    await seller.place("edited")
    for number in range(MAX_HISTORY + 5):
        await seller.execute(ChangeShippingAddress("edited", "", address(f"Side {number}")))
    await seller.execute(ConfirmOrder("edited"))
    await seller.place("first")
    await seller.execute(ConfirmOrder("first"))
    await replace_by_version_1(database_url, "first")
    for number in range(3):
        street = ("Main", f"Side {MAX_HISTORY + 4}", "Away")[number]
        await seller.place(f"o-{number}", street=street, units=600)
    await drop_index(database_url)
    for number in range(3):
        await sellers[number % 2].assess(f"o-{number}")
    assert await find_suspects(database_url) == ["o-2"]
    (assessment,) = [each for each in await read_assessments(database_url) if each.order_id == "o-0"]
    assert list(assessment.recent_order_ids) == ["first", "edited"]


async def replace_by_version_1(database_url: str, order_id: str) -> None:
    """Replace the first event of an order by the one that the first release would have recorded."""
    connection = await asyncpg.connect(database_url)
    stream = f"ordering.order.{order_id}"
    data = await connection.fetchval("SELECT data FROM events WHERE stream = $1 AND version = 1", stream)
    newest = v2.OrderPlaced.FromString(data)
    (group,) = newest.groups
    old = v1.OrderPlaced(
        order_id=newest.order_id,
        customer_id=newest.customer_id,
        lines=group.lines,
        total=newest.total,
        personal=group.personal,
        placed_at=newest.placed_at,
    )
    await connection.execute(ALLOW_CHANGES)
    await connection.execute(
        "UPDATE events SET type = $2, data = $3 WHERE stream = $1 AND version = 1",
        stream,
        "diptych.ordering.v1.OrderPlaced",
        old.SerializeToString(),
    )
    await connection.close()


async def drop_index(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("TRUNCATE event_index, event_index_progress")
    await connection.close()


async def test_an_event_that_cannot_be_read_stops_no_assessment_of_others(
    sellers: list[Seller], database_url: str
) -> None:
    await sellers[0].place("broken")
    await sellers[0].place("o-1")
    connection = await asyncpg.connect(database_url)
    await connection.execute(ALLOW_CHANGES)
    await connection.execute("UPDATE events SET data = '\\xff' WHERE stream = 'ordering.order.broken'")
    await connection.close()
    assert isinstance(await sellers[0].assess("o-1"), Accepted)
    assert sellers[0].unreadable == ["ordering.order.broken"]


async def test_servers_that_build_the_index_at_once_build_the_same(
    sellers: list[Seller], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_builder, "WINDOW", 3)
    for number in range(12):
        await sellers[0].place(f"o-{number}", street=str(number % 3))
        await sellers[0].execute(ConfirmOrder(f"o-{number}"))
    await asyncio.gather(*(sellers[number % 2].assess(f"o-{number}") for number in range(12)))
    before = await read_index(database_url)
    assert len(before) == 24
    await drop_index(database_url)
    await sellers[0].place("last")
    await asyncio.gather(*(seller.assess("last", caller=str(seller)[:64]) for seller in sellers))
    after = await read_index(database_url)
    assert after[: len(before)] == before


async def read_index(database_url: str) -> list[Any]:
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch("SELECT position, key FROM event_index ORDER BY position, key")
    await connection.close()
    return [tuple(row) for row in rows]


async def test_a_build_up_to_an_event_that_is_gone_ends(sellers: list[Seller]) -> None:
    await sellers[0].place("o-1")
    aggregate = aggregate_types([CONTEXT])[ORDERS.stream_type]
    builder = IndexBuilder(sellers[0].index, ORDERS, aggregate, lambda *_: None)
    with pytest.raises(StoreConflict, match="no event at position 1000000"):
        await builder.build_to(1_000_000)
