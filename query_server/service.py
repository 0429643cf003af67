"""QueryServices: the handler named beside each method of the proto, wrapped in what all queries share."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor

from query_server.reader import Reader
from query_server.staleness import Staleness
from query_server.views import ViewReader
from runtime.grpc.method import Context, Handler
from runtime.grpc.server import Service
from runtime.views import View

Answer = Callable[[ViewReader, Any, float | None], Awaitable[bytes]]
"""Takes the views, a valid request and the seconds until its deadline (None where there is none); returns
the serialised response."""


@dataclass(frozen=True, slots=True)
class Query:
    """A method of a QueryService: which view it reads, and how it answers."""

    view: View
    answer: Answer


@dataclass(frozen=True, slots=True)
class QueryContext:
    """A bounded context's queries by the names of their methods; one that is missing stops the start."""

    service: ServiceDescriptor
    queries: Mapping[str, Query]


@dataclass(frozen=True, slots=True)
class ReadModel:
    """A projection as queries see it."""

    views: ViewReader
    staleness: Staleness

    @classmethod
    def of(cls, view: View, reader: Reader) -> "ReadModel":
        """Return the read model of a view, read through this connection."""
        return cls(ViewReader(reader, view), Staleness(reader, view))


def query_service(context: QueryContext, models: Mapping[View, ReadModel]) -> Service:
    """Return a context's QueryService."""
    return Service(
        context.service,
        {name: _handler(query.answer, models[query.view]) for name, query in context.queries.items()},
    )


def _handler(answer: Answer, model: ReadModel) -> Handler:
    async def handle(request: Any, context: Context) -> bytes:
        try:
            return await answer(model.views, request, context.time_remaining())
        finally:  # a refusal too says how far behind the view may be
            context.set_trailing_metadata(model.staleness.metadata())

    return handle
