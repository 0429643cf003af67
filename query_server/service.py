"""QueryServices: the handler named beside each method of the proto, wrapped in what all queries share."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor

from contracts.view_layout import View
from query_server import wire_format
from query_server.change_feed import ChangeFeed
from query_server.reader import Reader
from query_server.staleness import Staleness
from query_server.view_reader import ViewReader
from query_server.watches import Watch, WatchResponses
from runtime.grpc import caller
from runtime.grpc.method import Context, Handler
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.server import Service

QueryHandler = Callable[[ViewReader, Any, float | None], Awaitable[bytes]]
"""Takes the views, a valid request and the seconds until its deadline (None where there is none); returns
the serialised response."""


@dataclass(frozen=True, slots=True)
class Query:
    """A method of a QueryService: which view it reads, and how it answers."""

    view: View
    handler: QueryHandler


WatchHandler = Callable[[Watch, Any], WatchResponses]
"""Takes how a watching call was made and its valid request; yields what it is answered with."""
VIEW, RESUME_TOKEN = 1, 2
"""The fields of every watching method's response."""


@dataclass(frozen=True, slots=True)
class WatchQuery:
    """A method of a QueryService that answers again and again."""

    view: View
    handler: WatchHandler


@dataclass(frozen=True, slots=True)
class QueryContext:
    """A bounded context's queries by the names of their methods; one that is missing stops the start."""

    service: ServiceDescriptor
    queries: Mapping[str, Query]
    watches: Mapping[str, WatchQuery] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The context's name."""
        return str(self.service.full_name.split(".")[1])


@dataclass(frozen=True, slots=True)
class ReadModel:
    """A projection as queries see it."""

    views: ViewReader
    staleness: Staleness

    @classmethod
    def of(cls, view: View, reader: Reader) -> "ReadModel":
        """Return the read model of a view, read through this connection."""
        return cls(ViewReader(reader, view), Staleness(reader, view))


def query_service(
    context: QueryContext, models: Mapping[View, ReadModel], change_feed: ChangeFeed
) -> Service:
    """Return a context's QueryService."""
    unary = {name: _handler(query.handler, models[query.view]) for name, query in context.queries.items()}
    streaming = {
        name: _watching(watch.handler, models[watch.view], change_feed)
        for name, watch in context.watches.items()
    }
    return Service(context.service, {**unary, **streaming})


def _handler(handler: QueryHandler, model: ReadModel) -> Handler:
    async def handle(request: Any, context: Context) -> bytes:
        try:
            return await handler(model.views, request, context.time_remaining())
        finally:  # a refusal too says how far behind the view may be
            context.set_trailing_metadata(model.staleness.metadata())

    return handle


def _watching(handler: WatchHandler, model: ReadModel, change_feed: ChangeFeed) -> Handler:
    async def handle(request: Any, context: Context) -> None:
        watch = Watch(
            model.views,
            change_feed,
            request.resume_token,
            request.at_least_as_fresh,
            context.time_remaining(),
        )
        try:
            async with (
                asyncio.timeout(caller.current().expires_in()) as allowed,
                aclosing(handler(watch, request)) as stream,
            ):
                async for view, token in stream:
                    await context.write(
                        wire_format.field(VIEW, view) + wire_format.field(RESUME_TOKEN, token.encode())
                    )
        except TimeoutError:
            if not allowed.expired():
                raise
            raise RpcError("TOKEN_EXPIRED", "the caller's token has expired during the call") from None

    return handle
