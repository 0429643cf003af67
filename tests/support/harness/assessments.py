"""Orders placed, confirmed and assessed on the real event store, and the assessments that follow from it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from time import monotonic
from typing import Any

import asyncpg
from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v2 import events_pb2 as v2

from command_server.contexts import ordering
from command_server.contexts.ordering.domain.customer_activity import AssessOrder
from command_server.contexts.ordering.domain.messages import (
    OrderLine,
    PlaceOrder,
    ShippingAddress,
    ShippingGroup,
)
from command_server.kernel.context import aggregate_types, command_types
from command_server.kernel.event_lookups import EventLookups
from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.money import Money
from command_server.kernel.outcomes import Accepted, Outcome
from command_server.kernel.ports import StoreConflict, StoreUnavailable
from command_server.postgres.event_index import PostgresEventIndex
from command_server.postgres.event_store import PostgresEventStore
from command_server.service import look_up_first
from contracts.events.ordering import EVENTS
from tests.support.builders.orders import OWN_PRICES
from tests.support.builders.requests import request

PATIENCE = 30.0
"""Seconds for which a command is repeated while the store does not answer."""
KINDS = {name.rpartition(".")[2]: kind for name, kind in command_types(ordering.CONTEXT).items()}


class Seller:
    """One command server of ordering, without gRPC."""

    def __init__(self, database_url: str) -> None:
        aggregates = aggregate_types([ordering.CONTEXT])
        self.unreadable: list[str] = []
        """The streams of events that are missing in the index."""
        self.store = PostgresEventStore(database_url)
        self.index = PostgresEventIndex(self.store)
        self.commits = GroupCommit(self.store, aggregates)
        self.lookups = EventLookups(
            self.index,
            [ordering.CONTEXT],
            aggregates,
            lambda stream, _version, _error: self.unreadable.append(stream),
        )
        self._execute = look_up_first(self.lookups, self.commits.execute)

    async def execute(self, command: Any, caller: str = "alice") -> Outcome:
        """Return the outcome of a command, which is repeated under its id as a client does."""
        repeated = request(command, caller=caller, kind=KINDS[type(command).__name__])
        deadline = monotonic() + PATIENCE
        while True:
            try:
                return (await self._execute(repeated)).outcome
            except (StoreConflict, StoreUnavailable) as error:
                if monotonic() > deadline:
                    raise
                await asyncio.sleep(error.retry_after)

    async def place(
        self, order_id: str, customer_id: str = "c-1", street: str = "Main", units: int = 40
    ) -> None:
        """Place an order of one line."""
        assert isinstance(await self.execute(place_order(order_id, customer_id, street, units)), Accepted)

    async def assess(self, order_id: str, customer_id: str = "c-1", version: int = 1, **more: Any) -> Outcome:
        return await self.execute(AssessOrder(customer_id, order_id, version), **more)


def place_order(order_id: str, customer_id: str = "c-1", street: str = "Main", units: int = 40) -> PlaceOrder:
    lines = (OrderLine("tea", "Tea", 1, Money("EUR", units)),)
    group = ShippingGroup("main", lines, address(street), "w-1")
    return PlaceOrder(order_id, customer_id, (group,), "a-1", scopes=OWN_PRICES)


def address(street: str) -> ShippingAddress:
    return ShippingAddress("Ada", (street,), "10115", "Berlin", "DE")


@asynccontextmanager
async def run_sellers(database_url: str, count: int = 2) -> AsyncIterator[list[Seller]]:
    """Run command servers on one database."""
    sellers = [Seller(database_url) for _ in range(count)]
    writers = [asyncio.create_task(seller.commits.run()) for seller in sellers]
    yield sellers
    for seller in sellers:
        seller.commits.close()
    await asyncio.gather(*writers)
    for seller in sellers:
        seller.lookups.close()
        await seller.store.close()


async def read_assessments(database_url: str) -> list[v1.OrderAssessed]:
    """Return all recorded assessments."""
    rows = await _read_events(database_url)
    return [event for _, event in rows if isinstance(event, v1.OrderAssessed)]


async def derive_assessments(database_url: str) -> Mapping[str, tuple[list[str], bool]]:
    """Return what the assessment of each order must know, from the events in order of their positions alone.

    Each order has the recent orders before it, and whether its address was new when it was placed. Orders
    have one shipping group, whose address does not change.
    """
    placed: list[v2.OrderPlaced] = []
    orders: dict[str, v2.OrderPlaced] = {}
    confirmed: set[tuple[str, bytes]] = set()
    expected: dict[str, tuple[list[str], bool]] = {}
    for _, event in await _read_events(database_url):
        match event:
            case v2.OrderPlaced():
                recent = [
                    each.order_id
                    for each in reversed(placed)
                    if each.customer_id == event.customer_id
                    and event.placed_at.ToDatetime() - each.placed_at.ToDatetime() <= timedelta(hours=1)
                ]
                expected[event.order_id] = recent[:5], _identify_address(event) not in confirmed
                placed.append(event)
                orders[event.order_id] = event
            case v1.OrderConfirmed():
                confirmed.add(_identify_address(orders[event.order_id]))
    return expected


def _identify_address(event: v2.OrderPlaced) -> tuple[str, bytes]:
    return event.customer_id, event.groups[0].personal.shipping_address.SerializeToString(deterministic=True)


async def _read_events(database_url: str) -> list[tuple[str, Any]]:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("SELECT stream, type, data FROM events ORDER BY position")
    finally:
        await connection.close()
    return [(row["stream"], EVENTS.get_parser(row["type"])(row["data"])) for row in rows]
