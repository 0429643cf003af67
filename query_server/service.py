"""QueryServices: the handler of each method of a proto, wrapped in the behaviour that all queries share.

A handler reads one generation of its projection. If another one serves, `GenerationSwitched` ends the
handler, and it runs again from its start on the read model of that generation. So a response is of one
generation, and no call fails because of a switch. A watch takes along what it has sent.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor

from contracts.key_ring import Purpose
from contracts.manifest import context_of
from contracts.view_layout import View
from query_server.change_notifications import ChangeNotifications
from query_server.fresh_reader import FreshReader
from query_server.read_models import ReadModel, ServingReadModel, follow
from query_server.search.definition import IndexDefinition
from query_server.search.follower import IndexFollower
from query_server.staleness import AnswerAge, select_oldest
from query_server.view_reader import GenerationSwitched, ViewReader
from query_server.watches import Watch, WatchProgress, WatchResponses
from query_server.wire_format import RESUME_TOKEN, VIEW, check_numbers, encode_field
from runtime.grpc import caller
from runtime.grpc.access import AccessRule, rule_of
from runtime.grpc.call_limit import CallLimit
from runtime.grpc.method import Context, Handler
from runtime.grpc.response_size import check_response_size
from runtime.grpc.server import Service
from runtime.grpc.waits import compute_deadline

MAX_RUNS = 10
"""Runs of the handler of a unary call. Each but the first follows a switch, which takes longer than a run."""

QueryHandler = Callable[[FreshReader, Any], Awaitable[bytes]]
"""Takes the reader of the call and a valid request; returns the serialised response."""


@dataclass(frozen=True, slots=True)
class Query:
    """A unary method of a QueryService: the view that it reads, and its handler.

    The handler's reads include the writes of the request's `at_least_as_fresh`. It may run more than once.
    """

    view: View
    handler: QueryHandler
    others: tuple[View, ...] = ()
    """Further views that it reads, in the order of `FreshReader.others`."""
    index: IndexDefinition | None = None
    """The index that it searches, for `FreshReader.index`."""


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
    key_purposes: tuple[Purpose, ...] = ()
    """Purposes of the keys with which its handlers sign, besides those of all queries."""

    def __post_init__(self) -> None:
        check_numbers(self.service)

    @property
    def name(self) -> str:
        return context_of(self.service.full_name)

    @property
    def indexes(self) -> Sequence[IndexDefinition]:
        """The indexes that its queries search."""
        found = {query.index.name: query.index for query in self.queries.values() if query.index}
        return list(found.values())


def query_service(
    context: QueryContext,
    models: Mapping[View, ServingReadModel],
    notifications: ChangeNotifications,
    watch_limit: CallLimit,
    indexes: Mapping[str, IndexFollower] = {},
) -> Service:
    """Return a context's QueryService; `indexes` are by name."""
    rules = {method.name: rule_of(method) for method in context.service.methods}
    unary = {
        name: _make_query_handler(
            query.handler,
            rules[name],
            [models[view] for view in (query.view, *query.others)],
            indexes[query.index.name] if query.index else None,
        )
        for name, query in context.queries.items()
    }
    streaming = {
        name: _make_watch_handler(watch.handler, rules[name], models[watch.view], notifications, watch_limit)
        for name, watch in context.watches.items()
    }
    return Service(context.service, {**unary, **streaming}, list_comparing(context))


def list_comparing(context: QueryContext) -> Collection[str]:
    """Return the methods whose views tell the owner that their rules name."""
    queries: dict[str, Query | WatchQuery] = {**context.queries, **context.watches}
    owners = {method.name: rule_of(method).owner for method in context.service.methods}
    return {name for name, query in queries.items() if query.view.owner == owners[name] != ""}


def _find_owners(rule: AccessRule) -> frozenset[str] | None:
    """Return the persons whose views exist for the caller; None for everybody's.

    The edge has compared the owner that a request names.
    """
    return None if rule.is_in_request or not rule.owner else rule.find_owners(caller.current())


def _make_query_handler(
    handler: QueryHandler,
    rule: AccessRule,
    models: Sequence[ServingReadModel],
    index: IndexFollower | None,
) -> Handler:
    first, *others = models
    knows_owner = bool(rule.owner) and not rule.is_in_request

    async def handle(request: Any, context: Context) -> bytes:
        deadline = compute_deadline(context.time_remaining())
        owners = _find_owners(rule) if knows_owner else None

        def make_reader(
            current: ReadModel, views: ViewReader, joined: tuple[FreshReader, ...] = ()
        ) -> FreshReader:
            return FreshReader(views, current.freshness, request.at_least_as_fresh, deadline, joined, index)

        for _ in range(MAX_RUNS):
            current = first.current
            age, ages, joined = AnswerAge(current.staleness), list[AnswerAge](), list[FreshReader]()
            for other in others:
                ages.append(AnswerAge(other.current.staleness))
                # What the caller's objects refer to is part of them: the owners of these are not compared.
                joined.append(make_reader(other.current, other.current.views.for_answer(ages[-1])))
            try:
                reader = make_reader(current, current.views.for_answer(age, owners), tuple(joined))
                return check_response_size(await handler(reader, request))
            except GenerationSwitched as switch:
                follow(models, switch)
            finally:  # errors carry the staleness as well
                context.set_trailing_metadata(select_oldest([age, *ages]) if ages else age.metadata())
        raise first.current.views.rebuilding_error()

    return handle


def _make_watch_handler(
    handler: WatchHandler,
    rule: AccessRule,
    model: ServingReadModel,
    notifications: ChangeNotifications,
    limit: CallLimit,
) -> Handler:
    async def handle(request: Any, context: Context) -> None:
        with limit.take_place():
            await serve(request, context)

    async def serve(request: Any, context: Context) -> None:
        deadline, progress = compute_deadline(context.time_remaining()), WatchProgress()
        while True:
            current = model.current
            watch = Watch(
                current.views.for_answer(AnswerAge(current.staleness), _find_owners(rule)),
                notifications,
                current.freshness,
                request.resume_token,
                request.at_least_as_fresh,
                deadline,
                progress,
            )
            try:
                return await _send_responses(watch, handler(watch, request), context)
            except GenerationSwitched as switch:
                model.follow(switch.generation)

    return handle


async def _send_responses(watch: Watch, responses: WatchResponses, context: Context) -> None:
    async with aclosing(responses):
        async for view, token in responses:
            if not watch.progress.has_sent:
                await context.send_initial_metadata(watch.views.age.metadata())
                watch.progress.has_sent = True
            response = encode_field(VIEW, view) + encode_field(RESUME_TOKEN, token.encode())
            await context.write(check_response_size(response))
