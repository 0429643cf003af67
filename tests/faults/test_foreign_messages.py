"""Messages put into the stream by hand: copies, forgeries and nonsense. The relay makes the stream anew."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import nats
import pytest
from diptych.ordering.v1.types_pb2 import Order
from redis.asyncio import Redis

from contracts import streams
from contracts.view_layout import View
from devstack.stack import Stack
from operations import projections
from runtime.jetstream import read_stream_identity
from tests.support.harness.invariants import all_is_well, verified
from tests.support.harness.shop import Shop
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until

VIEW = View.of(Order)


@asynccontextmanager
async def jetstream(stack: Stack) -> AsyncIterator[Any]:
    client = await nats.connect(stack.settings.nats_url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def put(js: Any, stream: str, data: bytes, headers: Mapping[str, str]) -> str:
    """Publish a message as if it were an event of a stream; return the epoch that it went to."""
    identity = await read_stream_identity(js)
    assert identity is not None
    epoch = identity.epoch
    subject = streams.subject(stream).replace("diptych.events.", f"diptych.feed.{epoch}.", 1)
    await js.publish(subject, data, headers=dict(headers))
    return epoch


async def placed(traffic: Traffic, shop: Shop) -> tuple[str, str]:
    """Return the ids of an order that is in every view, and its stream."""
    receipt = await traffic.place("copied")
    await shop.list(customer_id="copied", at_least_as_fresh=receipt.consistency_token)
    return receipt.aggregate_id, f"ordering.order.{receipt.aggregate_id}"


async def made_anew(js: Any, epoch: str) -> None:
    async def holds() -> bool:
        found = await read_stream_identity(js)
        return found is not None and found.epoch != epoch and found.complete

    await until(holds)


def changed(headers: Mapping[str, str], **values: str) -> dict[str, str]:
    return {**headers, **{key.replace("_", "-"): value for key, value in values.items()}}


@pytest.mark.parametrize("kind", ["copy", "older", "gap", "nonsense", "numbers"])
async def test_what_no_relay_has_published_changes_no_view_and_does_not_stay(
    stack: Stack, traffic: Traffic, kind: str
) -> None:
    shop = Shop(stack)
    async with traffic.flowing(), jetstream(stack) as js:
        await traffic.more(20)
        order_id, stream = await placed(traffic, shop)
        await shop.confirm(order_id)
        original = await js.get_last_msg(streams.JETSTREAM, streams.subject(stream), direct=True)
        headers = {key: value for key, value in original.headers.items() if not key.startswith("Nats-")}
        foreign = {
            "copy": headers,
            "older": changed(headers, diptych_version="1", ce_id=f"{stream}@1"),
            "gap": changed(headers, diptych_version="9", ce_id=f"{stream}@9"),
            "nonsense": {},
            "numbers": changed(headers, diptych_position=str(10**30)),
        }[kind]
        epoch = await put(js, stream, original.data, foreign)
        await made_anew(js, epoch)
        await traffic.more(20)
    await all_is_well(stack, traffic.answers)
    assert (await shop.get(order_id)).version == 2
    await shop.close()


async def test_a_forged_event_is_found_by_verify_and_gone_after_a_rebuild(
    stack: Stack, traffic: Traffic
) -> None:
    shop = Shop(stack)
    async with jetstream(stack) as js:
        _, stream = await placed(traffic, shop)
        original = await js.get_last_msg(streams.JETSTREAM, streams.subject(stream), direct=True)
        headers = {key: value for key, value in original.headers.items() if not key.startswith("Nats-")}
        forged = changed(headers, diptych_version="1", ce_id="ordering.order.forged@1")
        epoch = await put(js, "ordering.order.forged", original.data, forged)
        await made_anew(js, epoch)
    async with Redis.from_url(stack.settings.redis_url) as redis:

        async def believed() -> bool:
            return bool(await redis.exists(VIEW.key("forged")))

        await until(believed)
    report = await verified(stack)
    assert "view ordering.order forged" in report.to_text()
    for view in projections.VIEWS:
        if "ordering.order" in view.source_streams:
            await projections.rebuild(stack.settings.redis_url, view, within=60)
    await all_is_well(stack, traffic.answers)
    await shop.close()
