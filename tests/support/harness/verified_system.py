"""A system at rest to plant faults in: built by real processes once, restored for every test."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
from diptych.ordering.v1 import command_service_pb2 as v1
from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.ordering.v1.types_pb2 import Order, OrderHistory, OrderLine, ShippingAddress, ShippingGroup
from diptych.ordering.v2 import command_service_pb2 as v2
from diptych.ordering.v2.command_service_pb2_grpc import CommandServiceStub as CommandServiceStubV2
from google.type.money_pb2 import Money
from nats.js import api
from redis.asyncio import Redis

from contracts import streams
from contracts.view_layout import View
from devstack.servers import Nats, Valkey
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import COMMAND_SERVER
from operations.verify.report import Report
from operations.verify.verification import verify
from runtime.jetstream import Connection, Message, StreamReader, connect, read_stream_identity
from runtime.jetstream.stream import COMPLETE_KEY, EPOCH_KEY, INCARNATION_KEY
from runtime.process.settings import Settings

ORDERS, HISTORIES = View.of(Order), View.of(OrderHistory)
SCOPES = ("ordering.write", "ordering.review", "ordering.fulfil")
HOME = ShippingAddress(recipient="Ada", address_lines=["Main Street 1"], locality="Berlin", region_code="DE")


def line(sku: str, quantity: int = 1) -> OrderLine:
    price = Money(currency_code="EUR", units=9, nanos=990_000_000)
    return OrderLine(sku=sku, title=f"A {sku}", quantity=quantity, unit_price=price)


class Buyer:
    """Sends commands to a stack."""

    def __init__(self, stack: Stack) -> None:
        self._bearer = (("authorization", f"Bearer {stack.token(*SCOPES)}"),)
        self._channel = grpc.aio.insecure_channel(stack.of(COMMAND_SERVER)[0].address)
        self._v1: Any = CommandServiceStub(self._channel)
        self._v2: Any = CommandServiceStubV2(self._channel)

    async def place(self, order_id: str, customer: str) -> None:
        """Place an order with two shipping groups."""
        groups = [
            ShippingGroup(shipping_group_id=name, lines=[line("a"), line("b", 2)], shipping_address=HOME)
            for name in ("home", "work")
        ]
        for group in groups:
            group.warehouse_id = "w-1"
        request = v2.PlaceOrderRequest(
            request_id=str(uuid4()),
            order_id=order_id,
            customer_id=customer,
            shipping_groups=groups,
            account_id="a-1",
        )
        await self._v2.PlaceOrder(request, metadata=self._bearer)

    async def place_v1(self, order_id: str, customer: str) -> None:
        request = v1.PlaceOrderRequest(
            request_id=str(uuid4()),
            order_id=order_id,
            customer_id=customer,
            lines=[line("a")],
            shipping_address=HOME,
            account_id="a-1",
            warehouse_id="w-1",
        )
        await self._v1.PlaceOrder(request, metadata=self._bearer)

    async def send(self, command: str, order_id: str, **fields: Any) -> None:
        """Send any other command."""
        request = getattr(v1, f"{command}Request")(request_id=str(uuid4()), order_id=order_id, **fields)
        await getattr(self._v1, command)(request, metadata=self._bearer)

    async def close(self) -> None:
        await self._channel.close()


async def run_orders(buyer: Buyer) -> None:
    """Place five orders and send every other command once or more."""
    await buyer.place("o-1", "ada")
    await buyer.send("AddOrderLine", "o-1", shipping_group_id="work", line=line("c"))
    await buyer.send("RemoveOrderLine", "o-1", shipping_group_id="home", sku="a")
    new_address = ShippingAddress(recipient="Bob", address_lines=["2"], locality="Bonn", region_code="DE")
    await buyer.send("ChangeShippingAddress", "o-1", shipping_group_id="work", shipping_address=new_address)
    await buyer.send("HoldOrder", "o-1", reason="looks odd")
    await buyer.send("ApproveOrder", "o-1")
    await buyer.send("ConfirmOrder", "o-1")
    await buyer.send("ShipOrder", "o-1", carrier="Swift", tracking_code="S-17")
    await buyer.send("DeliverOrder", "o-1")
    await buyer.send("ReturnOrder", "o-1", reason="too small")
    await buyer.place_v1("o-2", "ada")
    await buyer.send("ConfirmOrder", "o-2")
    await buyer.send("CancelOrder", "o-2", reason="changed my mind")
    await buyer.place_v1("o-3", "ada")
    await buyer.send("HoldOrder", "o-3", reason="looks odd")
    await buyer.send("RejectOrder", "o-3", reason="is odd")
    await buyer.place("o-4", "bob")
    await buyer.place_v1("o-5", "bob")


Stored = tuple[str, dict[str, str], bytes]
"""A message: subject, headers, data."""


@dataclass
class Origin:
    """The contents of all servers of a system at rest."""

    database: str
    epoch: str
    incarnation: str
    messages: list[Stored]
    keys: dict[bytes, bytes] = field(default_factory=dict)
    """Every key in Redis, with its value as of DUMP."""


@dataclass
class System:
    """A restored copy of the origin, to plant faults in."""

    settings: Settings
    redis: Redis
    connection: Connection
    origin: Origin

    async def verify(self, within: float = 20.0) -> Report:
        return await verify(self.settings, within=within)

    async def find_problems(self, within: float = 20.0) -> list[str]:
        report = await self.verify(within)
        assert report.findings.total() == len(report.problems)
        return [f"{problem.subject}: {problem.text}" for problem in report.problems]

    async def sql(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.settings.database_url)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    async def publish(self, subject: str, headers: dict[str, str], data: bytes) -> None:
        await self.connection.js.publish(subject, data, headers=headers)

    async def restream(self, change: Callable[[list[Stored]], Sequence[Stored]] = lambda same: same) -> None:
        """Recreate the stream with the same epoch and changed messages."""
        metadata = {
            EPOCH_KEY: self.origin.epoch,
            INCARNATION_KEY: self.origin.incarnation,
            COMPLETE_KEY: "true",
        }
        config = api.StreamConfig(
            name=streams.JETSTREAM, subjects=[streams.SUBJECTS], allow_direct=True, metadata=metadata
        )
        for stream in await self.connection.js.streams_info():
            await self.connection.js.delete_stream(stream.config.name or "")
        await self.connection.js.add_stream(config)
        for message in change(list(self.origin.messages)):
            await self.publish(*message)

    async def change_view(self, view: View, view_id: str, **fields: Any) -> None:
        """Set fields of a view's message."""
        key = view.key(view_id)
        message: Any = view.message.FromString(await self.redis.hget(key, "data") or b"")  # type: ignore[arg-type]
        for name, value in fields.items():
            setattr(message, name, value)
        await self.redis.hset(key, "data", message.SerializeToString())


@asynccontextmanager
async def restore_system(
    origin: Origin, database_url: str, nats_url: str, redis_url: str
) -> AsyncIterator[System]:
    """Restore stream and Redis; the database is a copy of the origin's already."""
    settings = Settings(database_url=database_url, nats_url=nats_url, redis_url=redis_url)
    async with Redis.from_url(redis_url) as redis, await connect(nats_url, "test") as connection:
        await connection.wait_until_connected()
        await redis.flushall()
        for key, value in origin.keys.items():
            await redis.restore(key, 0, value)
        system = System(settings, redis, connection, origin)
        await system.restream()
        yield system


async def clear_servers(nats_server: Nats, redis_server: Valkey) -> None:
    """Delete the streams and keys of earlier tests."""
    async with await connect(nats_server.url, "test") as connection:
        await connection.wait_until_connected()
        for stream in await connection.js.streams_info():
            await connection.js.delete_stream(stream.config.name or "")
    async with Redis.from_url(redis_server.url) as redis:
        await redis.flushall()


async def build_origin(folder: Path, database_url: str, nats_url: str, redis_url: str) -> Origin:
    """Run orders through the processes; return the contents of all servers once verify finds nothing."""
    stack = temporary_stack(
        folder, database_url=database_url, nats_url=nats_url, redis_url=redis_url, query_servers=0
    )
    async with stack:
        buyer = Buyer(stack)
        await run_orders(buyer)
        await buyer.close()
        report = await verify(stack.settings, within=30)
        assert report.clean, report.to_text()
    origin = Origin(database_url, "", "", [])
    async with Redis.from_url(redis_url) as redis, await connect(nats_url, "test") as connection:
        await connection.wait_until_connected()
        async for key in redis.scan_iter(count=1_000):
            origin.keys[key] = await redis.dump(key)  # type: ignore[assignment]
        origin.epoch, origin.incarnation, messages = await _read_messages(connection)
        origin.messages = [(m.subject, _get_own_headers(m), m.data) for m in messages]
    return origin


def _get_own_headers(message: Message) -> dict[str, str]:
    """Return the headers without those that NATS adds."""
    return {name: value for name, value in message.headers.items() if not name.startswith("Nats-")}


async def _read_messages(connection: Connection) -> tuple[str, str, list[Message]]:
    stream = await read_stream_identity(connection.js)
    assert stream is not None
    reader = await StreamReader.open(connection, stream.epoch, 1)
    messages: list[Message] = []
    async with asyncio.timeout(20):
        while len(messages) < stream.messages:
            messages += await reader.read_batch(1_000, 5)
    await reader.close()
    return stream.epoch, stream.incarnation, messages
