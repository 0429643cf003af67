"""A person is forgotten through the whole stack: what shows their data is rewritten, all else goes on."""

import json
from uuid import uuid4

from diptych.banking.v1 import command_service_pb2 as banking
from diptych.banking.v1 import query_service_pb2 as bank_queries
from diptych.consistency.v1.consistency_pb2 import Receipt
from diptych.customers.v1 import command_service_pb2 as customers
from diptych.customers.v1 import query_service_pb2 as customer_queries
from google.type.money_pb2 import Money
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
    get_history = customer_queries.GetCustomerHistoryRequest(customer_id=customer_id)
    assert [entry.version for entry in (await caller.query(get_history)).entries] == [2, 1]
    confirmed = await shop.confirm(placed.aggregate_id)
    assert (await shop.get(placed.aggregate_id, confirmed.consistency_token)).version == 3
    kept = await shop.get(other.aggregate_id, other.consistency_token)
    assert kept.shipping_groups[0].shipping_address.recipient == "Ada"
    await caller.close()


async def open_account(caller: Caller, owner_id: str) -> str:
    request = banking.OpenAccountRequest(owner_id=owner_id, currency_code="SEK")
    return (await caller.execute(request)).aggregate_id


async def pay_in(caller: Caller, account_id: str) -> Receipt:
    amount = Money(currency_code="SEK", units=900)
    return await caller.execute(
        banking.DepositRequest(account_id=account_id, amount=amount, reference=f"from {NAME}")
    )


async def pay_out(caller: Caller, from_account_id: str, to_account_id: str) -> Receipt:
    amount = Money(currency_code="SEK", units=100)
    return await caller.execute(
        banking.TransferRequest(
            from_account_id=from_account_id,
            to_account_id=to_account_id,
            amount=amount,
            reference=f"for {NAME}",
        )
    )


async def test_ledgers_and_payments_are_rewritten_without_their_owner(stack: Stack) -> None:
    """Verify agrees, also with what other tests forgot."""
    caller = Caller(stack, *(f"banking.{duty}" for duty in ("open", "deposit", "pay", "read")))
    owner_id = uuid4().hex
    account_id, other_id = await open_account(caller, owner_id), await open_account(caller, "cleo")
    await pay_in(caller, account_id)
    sent = await pay_out(caller, account_id, other_id)
    asked = bank_queries.ListTransactionsRequest(
        account_id=account_id, at_least_as_fresh=sent.consistency_token
    )
    await caller.query(asked)
    get_transfer = bank_queries.GetTransferRequest(
        transfer_id=sent.aggregate_id, at_least_as_fresh=sent.consistency_token
    )
    await caller.query(get_transfer)
    code, out, err = await diptych(stack, "export-subject", owner_id, "--reason", "she asked")
    assert code == 0, err
    assert {each["view"] for each in json.loads(out)["views"] if NAME in str(each)} == {
        "banking.account_ledger",
        "banking.transfer",
    }
    done = await forget(stack.settings.database_url, TYPES, owner_id, "she asked", "bob", wait=0.0)
    streams = {f"banking.account.{account_id}", f"banking.transfer.{sent.aggregate_id}"}
    assert (done.streams.sealed, done.streams.clear) == (streams, set())

    async def is_gone() -> bool:
        return not await find_in_redis(stack, [account_id, sent.aggregate_id])

    await until(is_gone, 20)
    assert (await caller.query(get_transfer)).transfer.amount.units == 100
    await pay_in(caller, account_id)
    paid = await pay_out(caller, account_id, other_id)
    asked.at_least_as_fresh = paid.consistency_token
    lines = (await caller.query(asked)).transactions
    assert [line.balance.units for line in lines] == [1600, 1700, 0, 800, 900, 0]  # one has no line
    assert NAME not in str(lines)
    get_statement = bank_queries.GetStatementRequest(
        account_id=account_id, month="2199-11", at_least_as_fresh=paid.consistency_token
    )
    assert (await caller.query(get_statement)).statement.closing_balance.units == 1600
    asked.account_id = other_id
    received = (await caller.query(asked)).transactions
    assert [line.reference for line in received] == [f"for {NAME}", f"for {NAME}", ""]  # cleo's
    report = await verify(stack.settings)
    assert report.clean, report.problems
    await caller.close()
