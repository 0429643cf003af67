"""A person is forgotten through the whole stack: what shows their data is rewritten, all else goes on."""

import json
from uuid import uuid4

from diptych.customers.v1 import command_service_pb2 as customers
from diptych.customers.v1 import query_service_pb2 as customer_queries
from redis.asyncio import Redis

from devstack.stack import Stack
from operations.subjects.forgetting import forget
from operations.verify.verification import verify
from tests.support.harness.caller import Caller
from tests.support.harness.command_line import diptych
from tests.support.harness.contexts import CONTEXTS
from tests.support.harness.shop import Shop, order_of
from tests.support.harness.waiting import until

NAME = f"Ada {uuid4().hex[:8]}"
TYPES = [each.full_name for context in CONTEXTS for each in context.events.descriptors]


async def find_in_redis(stack: Stack, ids: list[str]) -> list[str]:
    """Return the keys of these ids whose values have the name."""
    async with Redis.from_url(stack.settings.redis_url) as redis:
        keys = [
            key
            for id_ in ids
            async for key in redis.scan_iter(match=f"*{id_}*", count=10_000)
            if await redis.type(key) == b"hash"
        ]
        values = [str(await redis.hgetall(key)) for key in keys]
    return [key.decode() for key, value in zip(keys, values, strict=True) if NAME in value]


async def test_views_and_histories_are_rewritten_without_the_person(stack: Stack, shop: Shop) -> None:
    caller = Caller(stack, *(f"customers.{right}" for right in ("write", "read")))
    email = f"{uuid4().hex}@example.com"
    registered = await caller.execute(customers.RegisterCustomerRequest(name=NAME, email=email))
    customer_id = registered.aggregate_id
    order = order_of(customer_id)
    order.shipping_address.recipient = NAME
    placed, other = await shop.place(order), await shop.place(order_of("cleo"))
    await shop.get(placed.aggregate_id, placed.consistency_token)
    get_customer = customer_queries.GetCustomerRequest(
        customer_id=customer_id, at_least_as_fresh=registered.consistency_token
    )
    await caller.query(get_customer)
    ids = [customer_id, placed.aggregate_id]
    assert await find_in_redis(stack, ids)
    code, out, err = await diptych(stack, "export-subject", customer_id, "--reason", "she asked")
    assert code == 0, err
    held = json.loads(out)
    types = {each["type"].rpartition(".")[2] for each in held["events"]}
    assert types >= {"CustomerRegistered", "EmailClaimed", "OrderPlaced"}
    assert {each["view"] for each in held["views"] if NAME in str(each)} == {
        "customers.customer",
        "ordering.order",
    }
    assert str(held["events"]).count(NAME) == 2
    done = await forget(stack.settings.database_url, TYPES, customer_id, "she asked", "bob", wait=0.0)
    assert done.streams.clear == set()

    async def is_forgotten() -> bool:
        view = await shop.get(placed.aggregate_id)
        person = (await caller.query(get_customer)).customer
        return view.HasField("forget_time") and person.HasField("forget_time")

    await until(is_forgotten, 20)

    async def is_gone() -> bool:
        return not await find_in_redis(stack, ids)

    await until(is_gone, 20)
    view = await shop.get(placed.aggregate_id)
    assert (view.version, view.customer_id, view.total.units) == (2, customer_id, 29)
    assert not view.shipping_groups[0].shipping_address.recipient
    assert (await caller.query(get_customer)).customer.name == ""
    confirmed = await shop.confirm(placed.aggregate_id)
    assert (await shop.get(placed.aggregate_id, confirmed.consistency_token)).version == 3
    kept = await shop.get(other.aggregate_id, other.consistency_token)
    assert kept.shipping_groups[0].shipping_address.recipient == "Ada"
    report = await verify(stack.settings)
    assert report.clean, report.problems
    await caller.close()
