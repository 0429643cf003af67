"""A thousand dead letters of three kinds are listed, explained, retried and skipped in order under load."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from diptych.operations.v1 import operations_service_pb2 as protocol
from diptych.operations.v1.dead_letters_pb2 import DeadLetter
from diptych.ordering.v1 import events_pb2 as events
from diptych.ordering.v1.types_pb2 import Order
from redis.asyncio import Redis

from contracts.view_layout import View
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from tests.support.harness.caller import Caller
from tests.support.harness.command_line import diptych
from tests.support.harness.invariants import verify_stack
from tests.support.harness.shop import Shop, order_of
from tests.support.harness.waiting import until

pytestmark = pytest.mark.long

COUNT = 1_000
HANDLER, TYPE, BYTES = "ShippingAddressChanged", "OrderMystified", "OrderHeld"
"""The types of the events that fail in a handler, are unknown, and cannot be decoded."""
KINDS = (HANDLER, TYPE, BYTES)
CONFIRMED = events.OrderConfirmed.DESCRIPTOR.full_name
PLANT = """
WITH changed AS (
  UPDATE streams s SET version = s.version + 1, updated_at = now()
  FROM unnest($1::text[], $2::text[], $3::bytea[])
    AS k(stream, type, data) WHERE s.id = k.stream RETURNING s.id, s.version, k.type, k.data
), planted AS (
  INSERT INTO events (stream, version, type, data, metadata, recorded_at)
  SELECT id, version, type, data, '{}', now() FROM changed RETURNING position
)
INSERT INTO outbox (position) SELECT position FROM planted
"""


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with temporary_stack(tmp_path, contexts="ordering", operations_servers=1) as stack:
        yield stack


@pytest.fixture
async def operator(stack: Stack) -> AsyncIterator[Caller]:
    operator = Caller(stack, "operations.read", "operations.act")
    yield operator
    await operator.close()


@pytest.fixture
async def shop(stack: Stack) -> AsyncIterator[Shop]:
    shop = Shop(stack)
    yield shop
    await shop.close()


async def place(shop: Shop, count: int) -> list[str]:
    receipts = await asyncio.gather(*(shop.place(order_of(f"c-{n}")) for n in range(count)))
    return [receipt.aggregate_id for receipt in receipts]


async def plant(stack: Stack, orders: Sequence[str]) -> dict[str, str]:
    """Add an event that cannot be applied to each order, and a good one behind it; return the kinds by id."""
    kinds = {order: KINDS[number % len(KINDS)] for number, order in enumerate(orders)}
    names = [f"ordering.order.{order}" for order in orders]
    moved = [events.ShippingAddressChanged(order_id=order, shipping_group_id="none") for order in orders]
    data = [
        b"\xff\xff" if kinds[order] == BYTES else moved[number].SerializeToString()
        for number, order in enumerate(orders)
    ]
    types = [f"diptych.ordering.v1.{kinds[order]}" for order in orders]
    confirmed = [events.OrderConfirmed(order_id=order).SerializeToString() for order in orders]
    database = await asyncpg.connect(stack.settings.database_url)
    await database.execute(PLANT, names, types, data)
    await database.execute(PLANT, names, [CONFIRMED] * len(orders), confirmed)
    await database.close()
    return kinds


async def list_all(operator: Caller, **filters: Any) -> list[DeadLetter]:
    letters, token = list[DeadLetter](), ""
    while True:
        request = protocol.ListDeadLettersRequest(page_size=200, page_token=token, **filters)
        page = await operator.query(request)
        letters += page.dead_letters
        token = page.next_page_token
        if not token:
            return letters


async def keep_busy(shop: Shop, stopping: asyncio.Event, placed: list[str]) -> None:
    while not stopping.is_set():
        placed += await place(shop, 2)
        await asyncio.sleep(0.1)  # 20 orders a second at most


async def skip_all(operator: Caller, letters: Sequence[DeadLetter]) -> None:
    for start in range(0, len(letters), 20):
        await asyncio.gather(
            *(
                operator.query(
                    protocol.SkipDeadLetterRequest(
                        projection=letter.projection, id=letter.id, version=letter.version, reason="planted"
                    )
                )
                for letter in letters[start : start + 20]
            )
        )


async def has_none(operator: Caller) -> bool:
    return not await list_all(operator)


async def test_a_thousand_dead_letters(stack: Stack, operator: Caller, shop: Shop) -> None:
    orders = [order for _ in range(10) for order in await place(shop, COUNT // 10)]
    kinds = await plant(stack, orders)
    numbers = Counter(kinds.values())
    expected = COUNT + numbers[TYPE]  # the history knows no such type either, and decodes nothing

    async def are_listed() -> bool:
        return len(await list_all(operator)) == expected

    await until(are_listed, 60)
    stopping, placed = asyncio.Event(), list[str]()
    load = asyncio.create_task(keep_busy(shop, stopping, placed))
    letters = await list_all(operator)
    assert {letter.version for letter in letters} == {2}
    assert {letter.id for letter in letters} == set(orders)
    places = Counter[str]()
    for start in range(0, COUNT, 20):
        requests = (protocol.GetDeadLetterRequest(id=order) for order in orders[start : start + 20])
        for response in await asyncio.gather(*map(operator.query, requests)):
            for details in response.dead_letters:
                assert details.event.type.endswith(kinds[details.dead_letter.id])
                assert details.waiting_events == 1
                places[details.dead_letter.place.partition(":")[0]] += 1
    assert places["projector/projections/ordering/order.py"] == numbers[HANDLER]
    assert places["projector/projection.py"] == 2 * numbers[TYPE] + numbers[BYTES]
    assert places.total() == expected

    code, out, err = await diptych(stack, "dead-letters", "retry", "--all", "--dry-run", "--json")
    assert (code, err, json.loads(out)["count"]) == (0, "", expected)
    code, out, err = await diptych(stack, "dead-letters", "retry", "--all", "--json", "--reason", "a test")
    assert (code, err, json.loads(out)) == (0, "", {"retried": expected, "refused": []})

    async def have_failed_again() -> bool:
        return all(letter.attempts and letter.place for letter in await list_all(operator))

    await until(have_failed_again, 300)
    await skip_all(operator, await list_all(operator))
    await until(lambda: has_none(operator), 300)
    stopping.set()
    await load
    assert placed
    for order in orders[:: COUNT // 50]:
        view = await shop.get(order)
        assert (view.state, view.version) == (Order.STATE_CONFIRMED, 3)
    report = await verify_stack(stack)
    assert (report.clean, len(report.skipped)) == (True, expected), report.to_text()

    async with Redis.from_url(stack.settings.redis_url) as redis:
        await redis.flushall()
        view_ready = View.of(Order).ready
        await until(lambda: redis.exists(view_ready), 60)
    report = await verify_stack(stack)
    assert (report.clean, await list_all(operator)) == (True, []), report.to_text()
