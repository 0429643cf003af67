"""The data of a load test on the local stack, and the end of the sagas that the test began.

Orders of a load test name articles that do not exist, so each fulfilment ends by itself with a rejection,
even if the test is killed. Held seats come back 20 s later, and the test does not wait for that. No other
command of the scenarios begins a saga.
"""

import asyncio
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Any
from uuid import UUID, uuid5

import asyncpg
from diptych.banking.v1 import command_service_pb2 as banking
from diptych.banking.v1 import command_service_pb2_grpc as banking_grpc
from diptych.catalogue.v1 import command_service_pb2 as catalogue
from diptych.catalogue.v1 import command_service_pb2_grpc as catalogue_grpc
from diptych.catalogue.v1.types_pb2 import ProductDetails
from diptych.customers.v1 import command_service_pb2 as customers
from diptych.customers.v1 import command_service_pb2_grpc as customers_grpc
from diptych.inventory.v1 import command_service_pb2 as inventory
from diptych.inventory.v1 import command_service_pb2_grpc as inventory_grpc
from diptych.inventory.v1.types_pb2 import RECEIPT_REASON_OPENING
from diptych.ordering.v1 import command_service_pb2_grpc as ordering_grpc
from diptych.ticketing.v1 import command_service_pb2_grpc as ticketing_grpc
from diptych_client import aio
from google.type.money_pb2 import Money

from bench import requests
from runtime.process.settings import Settings
from runtime.process.start_error import StartError

PRODUCTS, ACCOUNTS = 100, 200
"""Products `load-sku-0`, ... and accounts `load-account-0`, ..."""
CUSTOMERS = 100
"""Customers with the addresses `load-0@example.com`, ..."""
ORDERS, ORDERS_OF_A_CUSTOMER = 200, 5
"""Orders `load-read-0`, ... that queries read. A sixth order of a customer within an hour would be held for a
person's review."""
REQUEST_IDS = UUID("0f5c8f6e-4b0e-5d0f-9d0d-0a6a3a3d9a55")
COUNT_OPEN = """
SELECT count(*) FROM streams
WHERE id LIKE 'ordering.order.load-%' AND NOT EXISTS (
  SELECT FROM sagas WHERE saga = 'fulfilment.fulfilment' AND ended
    AND sagas.id = substr(streams.id, length('ordering.order.') + 1)
)
"""
CHECK_INTERVAL = 1.0
"""Seconds between two counts of the open fulfilments."""
STALLED_AFTER = 60.0
"""Seconds without the end of a fulfilment after which waiting is pointless."""

Command = tuple[Any, Any, str]
"""A stub's method, a request, and a name that is unique among the requests of its type."""


async def create_data(settings: Settings, token: str) -> None:
    """Create the data that the scenarios use; derived request ids make a repetition change nothing."""
    async with aio.connect(settings.command_address, token=token) as write:
        await _send_all(write, _generate_objects(write.channel))
        await _send_all(write, _generate_deliveries(write.channel))
        await _send_all(write, _generate_publications(write.channel))


async def _send_all(write: aio.Connection, commands: Iterable[Command]) -> None:
    remaining = iter(commands)

    async def send() -> None:
        for method, request, name in remaining:
            request.request_id = str(uuid5(REQUEST_IDS, f"{type(request).__name__} {name}"))
            await write.send(method, request)

    await asyncio.gather(*(send() for _ in range(32)))


def _generate_objects(channel: Any) -> Iterator[Command]:
    stock = inventory_grpc.CommandServiceStub(channel)
    for sku in _name_products():
        yield stock.RegisterProduct, inventory.RegisterProductRequest(sku=sku, title="A thing"), sku
    products = catalogue_grpc.CommandServiceStub(channel)
    yield products.AddCategory, catalogue.AddCategoryRequest(category_id="load", name="Things"), "load"
    for sku in _name_products():
        yield products.DraftProduct, catalogue.DraftProductRequest(sku=sku), sku
    accounts = banking_grpc.CommandServiceStub(channel)
    for name in _name_accounts():
        request = banking.OpenAccountRequest(account_id=name, owner_id="load", currency_code="EUR")
        yield accounts.OpenAccount, request, name
    people = customers_grpc.CommandServiceStub(channel)
    for number in range(CUSTOMERS):
        email = f"load-{number}@example.com"
        yield people.RegisterCustomer, customers.RegisterCustomerRequest(name="Load", email=email), email
    shows = ticketing_grpc.CommandServiceStub(channel)
    yield shows.ScheduleShow, requests.create_show("load-show"), "load-show"
    orders = ordering_grpc.CommandServiceStub(channel)
    for number, order in enumerate(requests.generate_orders(ORDERS, "load-read-")):
        order.customer_id = f"load-{number // ORDERS_OF_A_CUSTOMER}"
        for line in order.lines:
            line.sku = f"load-none-{line.sku}"
        yield orders.PlaceOrder, order, order.order_id


def _generate_deliveries(channel: Any) -> Iterator[Command]:
    """Yield the goods of the products, their places in the catalogue, and the money of the accounts."""
    products = catalogue_grpc.CommandServiceStub(channel)
    price, details = Money(currency_code="EUR", units=9), ProductDetails(title="A thing")
    for sku in _name_products():
        assign = catalogue.AssignCategoryRequest(sku=sku, category_id="load")
        yield products.ChangeDetails, catalogue.ChangeDetailsRequest(sku=sku, details=details), sku
        yield products.SetPrice, catalogue.SetPriceRequest(sku=sku, price=price), sku
        yield products.AssignCategory, assign, sku
    stock = inventory_grpc.CommandServiceStub(channel)
    for sku in _name_products():
        delivery = inventory.ReceiveStockRequest(
            sku=sku,
            warehouse_id="load-warehouse",
            quantity=1_000,
            reason=RECEIPT_REASON_OPENING,
            delivery_note="n-1",
        )
        yield stock.ReceiveStock, delivery, sku
    accounts = banking_grpc.CommandServiceStub(channel)
    amount = Money(currency_code="EUR", units=9_000)  # more would freeze the account
    for name in _name_accounts():
        deposit = banking.DepositRequest(account_id=name, amount=amount, reference="for transfers")
        yield accounts.Deposit, deposit, name


def _generate_publications(channel: Any) -> Iterator[Command]:
    products = catalogue_grpc.CommandServiceStub(channel)
    for sku in _name_products():
        yield products.PublishProduct, catalogue.PublishProductRequest(sku=sku), sku


def _name_products() -> Iterator[str]:
    return (f"load-sku-{number}" for number in range(PRODUCTS))


def _name_accounts() -> Iterator[str]:
    return (f"load-account-{number}" for number in range(ACCOUNTS))


async def wait_for_sagas(settings: Settings) -> None:
    """Wait until the fulfilment of every order of load tests has ended, and print the progress.

    Raises:
        StartError: no fulfilment ends, for instance because no process manager runs.
    """
    connection = await asyncpg.connect(settings.database_url)
    try:
        fewest, changed_at, printed_at = None, monotonic(), 0.0
        while count := int(await connection.fetchval(COUNT_OPEN)):
            if fewest is None or count < fewest:
                fewest, changed_at = count, monotonic()
            if monotonic() - changed_at > STALLED_AFTER:
                raise StartError(f"{count:,} fulfilments do not end; does a process manager run?")
            if monotonic() - printed_at > 10 * CHECK_INTERVAL:
                print(f"waiting for the end of {count:,} fulfilments", flush=True)
                printed_at = monotonic()
            await asyncio.sleep(CHECK_INTERVAL)
    finally:
        await connection.close()
