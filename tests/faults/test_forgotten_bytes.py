"""Nothing of a forgotten person is left in the files of the stores, nor in the logs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import asyncpg
import grpc
import pytest
from diptych.banking.v1 import command_service_pb2 as banking
from diptych.customers.v1 import command_service_pb2 as customers
from diptych.customers.v1.types_pb2 import PostalAddress
from google.type.money_pb2 import Money
from redis.asyncio import Redis

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.subjects.forgetting import forget
from operations.verify.verification import verify
from projector.forgotten_views import MAX_EVENTS
from tests.support.harness.caller import Caller
from tests.support.harness.command_line import diptych
from tests.support.harness.contexts import CONTEXTS
from tests.support.harness.shop import Shop, order_of
from tests.support.harness.waiting import until

pytestmark = pytest.mark.long
MARK = uuid4().hex
"""A part of every text about the person."""
TYPES = [each.full_name for context in CONTEXTS for each in context.events.descriptors]
ORDERS, ACCOUNTS = 40, 2
PAYMENTS = 2
"""With a stream of their own: a transfer, and a requested withdrawal."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "stack"
    folder.mkdir()
    return folder


@pytest.fixture
async def own_stack(folder: Path) -> AsyncIterator[Stack]:
    async with temporary_stack(folder, process_managers=1, operations_servers=1) as stack:
        yield stack


def find_traces(folder: Path) -> set[str]:
    """Return the parts of the stack whose files have a text about the person."""
    found = {
        path.relative_to(folder).parts[0]
        for path in folder.rglob("*")
        if path.is_file() and MARK.encode() in path.read_bytes()
    }
    return {name.removesuffix(".log") for name in found}


async def live(stack: Stack, shop: Shop) -> str:
    """Register a person, and have them place, change and cancel orders; return their id."""
    caller = Caller(stack, "customers.write", "ordering.place", "ordering.own-prices")
    address = PostalAddress(recipient=MARK, address_lines=[MARK], locality="London", region_code="GB")
    customer_id = (
        await caller.execute(
            customers.RegisterCustomerRequest(name=f"Ada {MARK}", email=f"{MARK}@example.com")
        )
    ).aggregate_id
    for number in range(MAX_EVENTS + 10):  # so many that a replay folds the view again
        name = f"Ada {MARK} {number}"
        await caller.execute(customers.ChangeNameRequest(customer_id=customer_id, name=name))
    await caller.execute(
        customers.AddAddressRequest(customer_id=customer_id, address_id="home", address=address)
    )
    receipts = []
    for number in range(ORDERS):
        order = order_of(customer_id)
        order.shipping_address.recipient = f"Ada {MARK} {number}"
        receipts.append(await shop.place(order))
        if number % 4 == 0:
            with suppress(grpc.aio.AioRpcError):  # a saga was faster
                await shop.cancel(receipts[-1].aggregate_id, f"I, {MARK}, have changed my mind")
    await caller.close()
    await bank(stack, customer_id)
    await shop.get(receipts[-1].aggregate_id, receipts[-1].consistency_token)
    return customer_id


async def bank(stack: Stack, owner_id: str) -> None:
    """Have a person pay in, out, and to themselves."""
    caller, ids = Caller(stack, *(f"banking.{duty}" for duty in ("open", "deposit", "pay"))), []
    for _ in range(ACCOUNTS):
        request = banking.OpenAccountRequest(owner_id=owner_id, currency_code="SEK")
        ids.append((await caller.execute(request)).aggregate_id)
    payment = {"amount": Money(currency_code="SEK", units=9), "reference": f"Ada {MARK} pays"}
    for _ in range(MAX_EVENTS + 10):
        await caller.execute(banking.DepositRequest(account_id=ids[0], **payment))
    await caller.execute(banking.WithdrawRequest(account_id=ids[0], **payment))
    await caller.execute(banking.TransferRequest(from_account_id=ids[0], to_account_id=ids[1], **payment))
    await caller.execute(banking.RequestWithdrawalRequest(account_id=ids[0], **payment))
    await caller.close()


async def clean(stack: Stack) -> None:
    """Have the stores rewrite their files, as PostgreSQL and Redis do by themselves in time."""
    database = await asyncpg.connect(stack.settings.database_url)
    for statement in ("VACUUM FULL", "CHECKPOINT", "SELECT pg_switch_wal()", "CHECKPOINT"):
        await database.execute(statement)
    await database.close()
    async with Redis.from_url(stack.settings.redis_url) as redis:
        await redis.bgrewriteaof()

        async def is_rewritten() -> bool:
            return not (await redis.info("persistence"))["aof_rewrite_in_progress"]

        await until(is_rewritten, 30)


async def test_no_trace_of_a_forgotten_person_is_left(own_stack: Stack, folder: Path) -> None:
    shop = Shop(own_stack)
    other = order_of("cleo")
    kept = await shop.place(other)
    customer_id = await live(own_stack, shop)
    async with Redis.from_url(own_stack.settings.redis_url) as redis:
        await redis.config_set("rdbcompression", "no")  # a trace must not hide

    async def is_in_views() -> bool:
        return "redis" in await asyncio.to_thread(find_traces, folder)

    await until(is_in_views, 30)
    assert await asyncio.to_thread(find_traces, folder) == {"redis"}  # sealed everywhere else
    done = await forget(own_stack.settings.database_url, TYPES, customer_id, "asked", "bob", wait=0.0)
    assert (len(done.streams.sealed), done.streams.clear) == (
        ORDERS + 1 + ACCOUNTS + PAYMENTS,
        set(),
    )

    async def is_gone() -> bool:
        await clean(own_stack)
        return not await asyncio.to_thread(find_traces, folder)

    await until(is_gone, 60)
    report = await verify(own_stack.settings)
    assert report.clean, report.problems
    code, out, err = await diptych(own_stack, "audit", "verify")
    assert code == 0, out + err
    view = await shop.get(kept.aggregate_id)
    assert view.shipping_groups[0].shipping_address == other.shipping_address
    await shop.close()
