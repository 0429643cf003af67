"""`make capacity`: the bytes that an order takes in each store: placed, fulfilled, delivered and archived."""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time_ns
from typing import Any
from uuid import uuid4

import asyncpg
import nats
from diptych.banking.v1 import command_service_pb2 as banking
from diptych.banking.v1.command_service_pb2_grpc import CommandServiceStub as BankingStub
from diptych.inventory.v1 import command_service_pb2 as inventory
from diptych.inventory.v1.command_service_pb2_grpc import CommandServiceStub as InventoryStub
from diptych.inventory.v1.types_pb2 import RECEIPT_REASON_OPENING
from diptych.ordering.v1 import command_service_pb2 as ordering
from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceStub as OrderingStub
from diptych_client import aio
from google.type.money_pb2 import Money
from redis.asyncio import Redis

from bench import requests
from contracts import streams
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.housekeeping.histories import trim_projection
from operations.housekeeping.views import archive_projection
from operations.processes import PROCESS_MANAGER
from operations.verify.verification import verify
from projector.projection import Projection
from projector.redis_archive import RedisArchive
from runtime.jetstream.nats_url import parse_nats_url
from runtime.process.contexts import choose_contexts, load_parts
from runtime.process.start_error import StartError

ORDERS = 500
CATCH_UP_TIMEOUT = 120.0
"""Seconds within which the read model has to include all events."""
SCOPES = (
    *("ordering.place", "ordering.own-prices", "ordering.ship", "ordering.all", "inventory.write"),
    *("banking.open", "banking.deposit", "banking.all"),
)
TABLES = """
SELECT relname, pg_total_relation_size(oid) FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""
ROWS = {
    "events": "PostgreSQL: events",
    "outbox": "PostgreSQL: outbox",
    "requests": "PostgreSQL: answers to requests",
    "audit": "PostgreSQL: audit",
    "streams": "PostgreSQL: streams and their states",
}
"""The row of the report for tables whose name begins so; all others belong to the sagas."""
FULFILLED = "SELECT count(*) FROM events WHERE type LIKE '%.OrderConfirmed'"
SETTLED = """
SELECT least(
  count(*) FILTER (WHERE type LIKE '%.ReservationCommitted'),
  count(*) FILTER (WHERE type LIKE '%.HoldCaptured')
) FROM events
"""
SAGAS = "PostgreSQL: sagas, steps, inputs, timers"


async def measure(folder: Path) -> list[Counter[str]]:
    """Return the bytes per placed, fulfilled, delivered and archived order."""
    async with temporary_stack(folder) as stack, _connect(stack) as write:
        await _create_objects(write)
        before = await _read_sizes(stack)
        orders = OrderingStub(write.channel)
        await _send(write, ((orders.PlaceOrder, order) for order in requests.generate_orders(ORDERS, "o-")))
        placed = await _read_sizes(stack)
        await stack.add(PROCESS_MANAGER).start()
        await _wait_until_counted(stack, FULFILLED)
        fulfilled = await _read_sizes(stack)
        await _send(write, ((orders.ShipOrder, _ship(number)) for number in range(ORDERS)))
        await _send(write, ((orders.DeliverOrder, _deliver(number)) for number in range(ORDERS)))
        await _wait_until_counted(stack, SETTLED)
        delivered = await _read_sizes(stack)
        await _archive(stack)
        sizes = placed, fulfilled, delivered, await _read_sizes(stack)
        return [_divide(each, before) for each in sizes]


def _connect(stack: Stack) -> aio.Connection:
    return aio.connect(stack.settings.command_address, token=stack.token(*SCOPES))


async def _create_objects(write: aio.Connection) -> None:
    stock: Any = InventoryStub(write.channel)
    accounts: Any = BankingStub(write.channel)
    skus = [f"sku-{number}" for number in range(3)]
    await _send(write, ((stock.RegisterProduct, _product(sku)) for sku in skus))
    await _send(write, ((stock.ReceiveStock, _delivery(sku)) for sku in skus))
    await _send(write, ((accounts.OpenAccount, _account(number)) for number in range(ORDERS)))
    await _send(write, ((accounts.Deposit, _deposit(number)) for number in range(ORDERS)))


async def _send(write: aio.Connection, commands: Iterable[tuple[Any, Any]]) -> None:
    remaining = iter(commands)

    async def send() -> None:
        for method, request in remaining:
            await write.send(method, request)

    await asyncio.gather(*(send() for _ in range(16)))


def _product(sku: str) -> Any:
    return inventory.RegisterProductRequest(request_id=str(uuid4()), sku=sku, title="A thing")


def _delivery(sku: str) -> Any:
    return inventory.ReceiveStockRequest(
        request_id=str(uuid4()),
        sku=sku,
        warehouse_id="warehouse-1",
        quantity=100 * ORDERS,
        reason=RECEIPT_REASON_OPENING,
        delivery_note="n-1",
    )


def _account(number: int) -> Any:
    return banking.OpenAccountRequest(
        request_id=str(uuid4()),
        account_id=f"account-{number}",
        owner_id=f"customer-{number}",
        currency_code="EUR",
    )


def _deposit(number: int) -> Any:
    return banking.DepositRequest(
        request_id=str(uuid4()),
        account_id=f"account-{number}",
        amount=Money(currency_code="EUR", units=1_000),
        reference="for orders",
    )


async def _wait_until_counted(stack: Stack, count: str) -> None:
    """Wait until a query counts all orders."""
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        while await connection.fetchval(count) < ORDERS:
            await asyncio.sleep(0.5)
    finally:
        await connection.close()


def _ship(number: int) -> Any:
    return ordering.ShipOrderRequest(
        request_id=str(uuid4()), order_id=f"o-{number}", carrier="Post", tracking_code=f"t-{number}"
    )


def _deliver(number: int) -> Any:
    return ordering.DeliverOrderRequest(request_id=str(uuid4()), order_id=f"o-{number}")


async def _archive(stack: Stack) -> None:
    """Archive the views of all that has ended, and all but the last entries of histories."""
    async with Redis.from_url(stack.settings.redis_url) as redis:
        for projection in load_parts(
            choose_contexts(stack.settings), "projections", "PROJECTIONS", Projection
        ):
            archive = RedisArchive(redis, projection.view)
            await archive.read_build()
            await archive_projection(projection, archive, time_ns(), dry_run=False)
            await trim_projection(projection, archive, time_ns(), dry_run=False)


async def _read_sizes(stack: Stack) -> Counter[str]:
    """Return the bytes of each row of the report, once everything is published and projected."""
    report = await verify(stack.settings, within=CATCH_UP_TIMEOUT)
    if not report.clean:
        raise StartError(report.to_text())
    sizes: Counter[str] = Counter()
    connection = await asyncpg.connect(stack.settings.database_url)
    for table, size in await connection.fetch(TABLES):
        row = next((row for prefix, row in ROWS.items() if table.startswith(prefix)), SAGAS)
        sizes[row] += size
    await connection.close()
    url = parse_nats_url(stack.settings.nats_url)
    client = await nats.connect(url.servers, nkeys_seed=url.nkey, inbox_prefix=url.inbox_prefix)
    sizes["JetStream"] = (await client.jetstream().stream_info(streams.JETSTREAM)).state.bytes
    await client.close()
    async with Redis.from_url(stack.settings.redis_url) as redis:
        sizes["Redis: views, indexes, history"] = (await redis.info("memory"))["used_memory_dataset"]
    return sizes


def _divide(after: Counter[str], before: Counter[str]) -> Counter[str]:
    return Counter({row: (after[row] - before[row]) // ORDERS for row in after})


def main() -> None:
    with TemporaryDirectory() as folder:
        try:
            sizes = asyncio.run(measure(Path(folder)))
        except StartError as error:
            sys.exit(f"capacity: {error}")
    print(f"| bytes per order of three lines, mean of {ORDERS} | placed | fulfilled | delivered | archived |")
    print("| --- | --- | --- | --- | --- |")
    for row in sorted(sizes[-1]):
        print(f"| {row} | {' | '.join(f'{each[row]:,}' for each in sizes)} |")


if __name__ == "__main__":
    main()
