"""No query says of an archived aggregate that it does not exist, in any context."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.message_factory import GetMessageClass
from redis.asyncio import Redis

from contracts.view_layout import View
from query_server.redis_client import RedisClient
from query_server.service import Query
from query_server.view_reader import ViewReader
from runtime.grpc.rpc_error import RpcError
from runtime.redis.address import RedisAddress
from tests.support.harness.contexts import PROJECTIONS, QUERY_CONTEXTS
from tests.support.harness.read_model import ARCHIVED_AT, INCARNATION, respond

ID = "x-1"
ARCHIVABLE = {projection.view for projection in PROJECTIONS if projection.archival is not None}
BY_ID = {
    "GetOrder",
    "GetOrderCard",
    "BatchGetOrders",
    "GetOrderHistory",
    "GetHold",
    "GetOverdraft",
    "GetTransfer",
    "GetWithdrawal",
    "GetReservation",
    "GetBooking",
}
"""The queries that name an aggregate; the others list or count."""


def list_queries() -> Iterator[tuple[str, Query, Any, Any]]:
    """Yield each query of views that may be archived, with its messages."""
    for context in QUERY_CONTEXTS:
        for name, query in context.queries.items():
            if query.view in ARCHIVABLE:
                method = context.service.methods_by_name[name]
                yield name, query, GetMessageClass(method.input_type), GetMessageClass(method.output_type)


def build_request(message: Any) -> Any:
    """Return a request that names ID in every id field."""
    request = message()
    for field in message.DESCRIPTOR.fields:
        if field.name.endswith("_ids"):
            getattr(request, field.name).append(ID)
        elif field.name.endswith("_id") and not field.name.startswith("except_"):
            setattr(request, field.name, ID)
    return request


async def put_tombstone(redis: Redis, view: View) -> None:
    await redis.hset(view.key(ID), mapping={"version": 3, "revision": 5, "archived": ARCHIVED_AT})


def test_the_queries_by_id_are_all_here() -> None:
    assert {name for name, *_ in list_queries()} >= BY_ID


@pytest.mark.parametrize(
    ("query", "request_type", "response_type", "by_id"),
    [pytest.param(*each, name in BY_ID, id=name) for name, *each in list_queries()],
)
async def test_an_archived_aggregate_is_not_missing(
    redis_url: str, query: Query, request_type: Any, response_type: Any, by_id: bool
) -> None:
    async with Redis.from_url(redis_url) as redis, RedisClient(RedisAddress(redis_url)) as reader:
        await put_tombstone(redis, query.view)
        await redis.mset({view.ready: INCARNATION for view in (query.view, *query.others)})
        others = [ViewReader(reader, view) for view in query.others]
        views, request = ViewReader(reader, query.view), build_request(request_type)
        try:
            data = await respond(query.handler, views, request, others=others)
        except RpcError as error:
            assert by_id
            assert error.reason == "VIEW_ARCHIVED"
            assert (error.metadata["version"], ID in error.metadata.values()) == ("3", True)
            return
        response = response_type.FromString(data)
        assert not by_id or [*response.archived_order_ids] == [ID]
        missing = [field for field in response_type.DESCRIPTOR.fields_by_name if field.startswith("missing_")]
        assert not any(getattr(response, field) for field in missing)
