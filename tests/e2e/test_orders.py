"""Orders through two command servers, two relays, two projectors and two query servers at once."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import diptych_client
import grpc
import pytest
from diptych.ordering.v1.types_pb2 import Order

from contracts import streams
from devstack.stack import Stack
from runtime import jetstream
from runtime.jetstream import SubjectReader
from tests.support.builders.request_ids import request_id_of
from tests.support.harness.shop import Shop, order_of


@pytest.fixture
async def own_shop(stack: Stack) -> AsyncIterator[Shop]:
    """A shop with a subject of its own, since servers record only so many refused calls of one caller."""
    shop = Shop(stack, "own")
    yield shop
    await shop.close()


async def rows(shop: Shop, sql: str, *arguments: object) -> list[asyncpg.Record]:
    """Query the database of the write model."""
    connection = await asyncpg.connect(shop.stack.settings.database_url)
    try:
        return list(await connection.fetch(sql, *arguments))
    finally:
        await connection.close()


async def test_an_order_is_read_back_at_once_at_any_server(shop: Shop) -> None:
    for _ in range(4):
        request = order_of("ada")
        receipt = await shop.place(request)
        order = await shop.get(receipt.aggregate_id, receipt.consistency_token)
        assert (order.state, order.version) == (Order.STATE_PLACED, 1)
        (group,) = order.shipping_groups
        assert (group.lines, group.shipping_address) == (request.lines, request.shipping_address)
        assert (order.total.units, order.total.nanos) == (29, 970_000_000)


async def test_personal_data_is_readable_in_views_alone(shop: Shop) -> None:
    request = order_of("ada")
    request.shipping_address.recipient = "Ada Augusta King"
    receipt = await shop.place(request)
    order = await shop.get(receipt.aggregate_id, receipt.consistency_token)
    assert order.shipping_groups[0].shipping_address.recipient == "Ada Augusta King"
    (event,) = await rows(
        shop, "SELECT data FROM events WHERE stream = $1", f"ordering.order.{order.order_id}"
    )
    (key,) = await rows(shop, "SELECT id FROM subject_keys WHERE subject = 'ada'")
    assert b"Ada Augusta" not in event["data"]
    assert key["id"] in event["data"]
    async with await jetstream.connect(shop.stack.settings.nats_url, "test") as nats:
        subject = streams.subject(f"ordering.order.{order.order_id}")
        await nats.wait_until_connected()
        (message,) = await SubjectReader(nats, subject).read_batch()
    assert message.data == event["data"]


async def test_a_command_repeated_at_the_other_server_has_one_effect_and_one_answer(shop: Shop) -> None:
    request = order_of("bob")
    receipts = await asyncio.gather(*(shop.place(request) for _ in range(6)))
    assert all(receipt == receipts[0] for receipt in receipts)
    orders = await shop.list(customer_id="bob", at_least_as_fresh=receipts[0].consistency_token)
    assert [order.order_id for order in orders] == [receipts[0].aggregate_id]


async def test_a_request_id_used_for_another_request_is_refused_and_on_record(own_shop: Shop) -> None:
    request = order_of("bea")
    await own_shop.place(request)
    request.customer_id = "mallory"
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await own_shop.place(request)
    assert error.value.code() == grpc.StatusCode.ALREADY_EXISTS
    found = await rows(
        own_shop,
        "SELECT caller, reason FROM refused_calls WHERE details ->> 'request_id' = $1",
        request.request_id,
    )
    assert [tuple(row) for row in found] == [("own", "REQUEST_ID_REUSED")]


async def test_a_request_id_older_than_the_answers_is_refused_and_on_record(own_shop: Shop) -> None:
    request = order_of("bea")
    request.request_id = request_id_of(datetime.now(UTC) - timedelta(days=31))
    with pytest.raises(diptych_client.Rejection) as rejected:
        try:
            await own_shop.place(request)
        except grpc.aio.AioRpcError as error:
            raise diptych_client.Rejection.from_error(error) from error
    assert (rejected.value.code, rejected.value.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "REQUEST_TOO_OLD",
    )
    assert rejected.value.metadata["request_id"] == request.request_id
    found = await rows(
        own_shop,
        "SELECT caller, reason FROM refused_calls WHERE details ->> 'request_id' = $1",
        request.request_id,
    )
    assert [tuple(row) for row in found] == [("own", "REQUEST_TOO_OLD")]
    request.request_id = request_id_of(datetime.now(UTC) + timedelta(days=2))
    with pytest.raises(grpc.aio.AioRpcError) as invalid:
        await own_shop.place(request)
    assert invalid.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_an_expected_version_that_is_not_the_orders_is_aborted(shop: Shop) -> None:
    receipt = await shop.place(order_of("cleo"))
    await shop.confirm(receipt.aggregate_id)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await shop.cancel(receipt.aggregate_id, expected_version=1)
    assert error.value.code() == grpc.StatusCode.ABORTED
    cancelled = await shop.cancel(receipt.aggregate_id, expected_version=2)
    assert cancelled.version == 3


async def test_views_and_lists_match_the_commands(shop: Shop) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    customer = f"dan-{uuid4().hex[:6]}"
    expected: dict[str, Order.State.ValueType] = {}

    async def live() -> str:
        receipt = await shop.place(order_of(customer))
        expected[receipt.aggregate_id] = Order.STATE_PLACED
        for _ in range(dice.randrange(3)):
            step, state = dice.choice(
                [(shop.confirm, Order.STATE_CONFIRMED), (shop.cancel, Order.STATE_CANCELLED)]
            )
            if state == Order.STATE_CONFIRMED and expected[receipt.aggregate_id] == Order.STATE_CANCELLED:
                continue
            receipt = await step(receipt.aggregate_id)
            expected[receipt.aggregate_id] = state
        return receipt.consistency_token

    tokens = await asyncio.gather(*(live() for _ in range(100)))
    for token in tokens:
        await shop.list(customer_id=customer, state=Order.STATE_CANCELLED, at_least_as_fresh=token)
    listed = await shop.list(customer_id=customer, page_size=7)
    assert {order.order_id: order.state for order in listed} == expected
    assert listed == sorted(listed, key=lambda order: order.place_time.ToNanoseconds(), reverse=True)
    for state in set(expected.values()):
        both = await shop.list(customer_id=customer, state=state, page_size=7)
        assert {order.order_id for order in both} == {
            key for key, value in expected.items() if value == state
        }


async def test_every_stream_is_gapless_in_the_store_and_published_once(shop: Shop) -> None:
    receipts = await asyncio.gather(*(shop.place(order_of("eve")) for _ in range(50)))
    await asyncio.gather(*(shop.confirm(receipt.aggregate_id) for receipt in receipts))
    last = await shop.cancel(receipts[0].aggregate_id)
    await shop.get(last.aggregate_id, last.consistency_token)
    gaps = await rows(
        shop, "SELECT stream FROM events GROUP BY stream HAVING count(*) <> max(version) OR min(version) <> 1"
    )
    twice = await rows(
        shop, "SELECT sequence FROM outbox WHERE sequence > 0 GROUP BY epoch, sequence HAVING count(*) > 1"
    )
    assert (gaps, twice) == ([], [])
