"""QueryServices: the handler of each method of a proto, wrapped in the behaviour that all queries share."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor

from contracts.manifest import context_of
from contracts.view_layout import View
from query_server.change_notifications import ChangeNotifications
from query_server.fresh_reader import FreshReader
from query_server.freshness import Freshness
from query_server.redis_client import RedisClient
from query_server.staleness import AnswerAge, Staleness
from query_server.view_reader import ViewReader
from query_server.watches import Watch, WatchResponses
from query_server.wire_format import RESUME_TOKEN, VIEW, check_numbers, encode_field
from runtime.grpc import caller
from runtime.grpc.call_limit import CallLimit
from runtime.grpc.method import Context, Handler
from runtime.grpc.request_tokens import RequestTokens
from runtime.grpc.response_size import check_response_size
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.server import Service
from runtime.grpc.waits import Waits, compute_deadline

QueryHandler = Callable[[FreshReader, Any], Awaitable[bytes]]
"""Takes the reader of the call and a valid request; returns the serialised response."""


@dataclass(frozen=True, slots=True)
class Query:
    """A unary method of a QueryService: the view that it reads, and its handler.

    The handler's reads include the writes of the request's `at_least_as_fresh`.
    """

    view: View
    handler: QueryHandler


WatchHandler = Callable[[Watch, Any], WatchResponses]
"""Takes the parameters of a watch call and its valid request; yields the responses."""


@dataclass(frozen=True, slots=True)
class WatchQuery:
    """A server-streaming method of a QueryService: the view that it watches, and its handler."""

    view: View
    handler: WatchHandler


@dataclass(frozen=True, slots=True)
class QueryContext:
    """A bounded context's queries by method name; the server does not start if one is missing.

    Raises:
        ValueError: a response has field numbers that `wire_format.check_numbers` refuses.
    """

    service: ServiceDescriptor
    queries: Mapping[str, Query]
    watches: Mapping[str, WatchQuery] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_numbers(self.service)

    @property
    def name(self) -> str:
        return context_of(self.service.full_name)


@dataclass(frozen=True, slots=True)
class ReadModel:
    """The views of one projection, the bound on their age, and the reads that wait for them."""

    views: ViewReader
    staleness: Staleness
    freshness: Freshness

    @classmethod
    def of(
        cls,
        view: View,
        redis: RedisClient,
        notifications: ChangeNotifications,
        tokens: RequestTokens,
        waits: Waits,
    ) -> "ReadModel":
        views = ViewReader(redis, view)
        return cls(views, Staleness(redis, view), Freshness(views, tokens, waits, notifications))


def query_service(
    context: QueryContext,
    models: Mapping[View, ReadModel],
    notifications: ChangeNotifications,
    watch_limit: CallLimit,
) -> Service:
    """Return a context's QueryService."""
    unary = {
        name: _make_query_handler(query.handler, models[query.view])
        for name, query in context.queries.items()
    }
    streaming = {
        name: _make_watch_handler(watch.handler, models[watch.view], notifications, watch_limit)
        for name, watch in context.watches.items()
    }
    return Service(context.service, {**unary, **streaming})


def _make_query_handler(handler: QueryHandler, model: ReadModel) -> Handler:
    async def handle(request: Any, context: Context) -> bytes:
        age = AnswerAge(model.staleness)
        try:
            reader = FreshReader(
                model.views.for_answer(age),
                model.freshness,
                request.at_least_as_fresh,
                compute_deadline(context.time_remaining()),
            )
            return check_response_size(await handler(reader, request))
        finally:  # errors carry the staleness as well
            context.set_trailing_metadata(age.metadata())

    return handle


def _make_watch_handler(
    handler: WatchHandler, model: ReadModel, notifications: ChangeNotifications, limit: CallLimit
) -> Handler:
    async def handle(request: Any, context: Context) -> None:
        with limit.take_place():
            await serve(request, context)

    async def serve(request: Any, context: Context) -> None:
        age = AnswerAge(model.staleness)
        watch = Watch(
            model.views.for_answer(age),
            notifications,
            model.freshness,
            request.resume_token,
            request.at_least_as_fresh,
            compute_deadline(context.time_remaining()),
        )
        try:
            async with (
                asyncio.timeout(caller.current().expires_in()) as token_lifetime,
                aclosing(handler(watch, request)) as responses,
            ):
                is_first = True
                async for view, token in responses:
                    if is_first:
                        await context.send_initial_metadata(age.metadata())
                        is_first = False
                    response = encode_field(VIEW, view) + encode_field(RESUME_TOKEN, token.encode())
                    await context.write(check_response_size(response))
        except TimeoutError:
            if not token_lifetime.expired():
                raise
            raise RpcError("TOKEN_EXPIRED", "the caller's token has expired during the call") from None

    return handle
