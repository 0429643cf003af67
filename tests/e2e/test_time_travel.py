"""Time travel: what the operations server folds from events equals what decides and what is served."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from diptych.operations.v1 import operations_service_pb2 as protocol
from diptych.operations.v1.dead_letters_pb2 import EventContent
from diptych.ordering.v1.types_pb2 import Order
from google.protobuf.json_format import MessageToDict
from redis.asyncio import Redis

from contracts.streams import aggregate_id, stream_type
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.verify.verification import verify
from projector.projection import Projection
from runtime.process.contexts import load_parts
from tests.support.harness.caller import Caller
from tests.support.harness.contexts import MANIFESTS
from tests.support.harness.trade import SCOPES, Trade


@pytest.fixture
async def stack(tmp_path: Path, database_url: str, nats_url: str, redis_url: str) -> AsyncIterator[Stack]:
    async with temporary_stack(
        tmp_path,
        database_url=database_url,
        nats_url=nats_url,
        redis_url=redis_url,
        process_managers=1,
        operations_servers=1,
    ) as stack:
        yield stack


def ask(stream: str, version: int = 0) -> protocol.GetStateRequest:
    """Return a request for the whole state."""
    full = EventContent.EVENT_CONTENT_FULL
    return protocol.GetStateRequest(stream=stream, version=version, content=full)


async def read_versions(stack: Stack) -> Sequence[Any]:
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        rows = await connection.fetch(
            "SELECT id AS stream, s.version, array_agg(e.recorded_at ORDER BY e.version) AS times"
            " FROM streams s JOIN events e ON e.stream = s.id GROUP BY id, s.version"
        )
        return list(rows)
    finally:
        await connection.close()


async def read_live_views(redis: Any, projections: Sequence[Projection[Any]], stream: str) -> dict[str, Any]:
    """Return the served views of a stream, by projection."""
    views = {}
    for projection in projections:
        view = projection.view
        if stream_type(stream) in view.source_streams:
            data = await redis.hget(view.key(aggregate_id(stream)), "data")
            views[view.projection] = MessageToDict(
                view.message.FromString(data), preserving_proto_field_name=True
            )
    return views


async def test_the_state_now_equals_the_views_served_in_all_contexts(stack: Stack) -> None:
    caller, operator = Caller(stack, *SCOPES), Caller(stack, "operations.read", "operations.personal")
    trade = Trade(caller)
    sku, account = await trade.create_product(20), await trade.open_account(100)
    orders = await asyncio.gather(*(trade.place_order(sku, account) for _ in range(2)))
    refused = await trade.place_order(sku, await trade.open_account(1))
    await asyncio.gather(*(trade.watch_until(order, Order.STATE_CONFIRMED) for order in orders))
    await trade.wait_for_state(refused, "REJECTED")
    await trade.ship(orders[0])
    await trade.return_order(orders[0])
    report = await verify(stack.settings, within=30)
    assert report.clean, report.to_text()

    projections = load_parts(MANIFESTS, "projections", "PROJECTIONS", Projection)
    seen = set()
    async with Redis.from_url(stack.settings.redis_url) as redis:
        for row in await read_versions(stack):
            stream = row["stream"]
            response = await operator.query(ask(stream))
            assert (response.version, response.state_error, dict(response.view_errors)) == (
                row["version"],
                "",
                {},
            )
            views = {name: MessageToDict(view) for name, view in response.views.items()}
            live = await read_live_views(redis, projections, stream)
            # Through a Struct, as the response: numbers become floats there.
            assert views == live, stream
            assert response.state.fields
            seen.add(stream_type(stream))
            await check_versions_and_times(operator, row)
    assert len(seen) > 5, seen
    for each in (caller, operator):
        await each.close()


async def check_versions_and_times(operator: Caller, row: Any) -> None:
    """Compare each version with the moment at which it was the latest."""
    times = row["times"]
    for version, time in enumerate(times, 1):
        of_version = await operator.query(ask(row["stream"], version))
        assert of_version.version == version
        if times[version:] and times[version] == time:
            continue  # the next one was recorded in the same moment
        request = ask(row["stream"])
        request.time.FromDatetime(time)
        of_time = await operator.query(request)
        assert (of_time.version, of_time.state, of_time.views) == (
            version,
            of_version.state,
            of_version.views,
        )
