"""Queries of callers who reach their own objects alone: the views of others are as if they did not exist.

Every query and watch whose request does not name the owner is tried, in every state of a view.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import time
from typing import Any

import msgspec
import pytest
from diptych.banking.v1.types_pb2 import AccountLedger, Transaction
from google.protobuf.message_factory import GetMessageClass
from grpc import StatusCode
from redis.asyncio import Redis

from contracts.streams import PARTITIONS
from contracts.view_layout import View
from query_server.change_notifications import ChangeNotifications
from query_server.redis_client import RedisClient
from query_server.service import Query, QueryContext, WatchQuery, query_service
from query_server.staleness import StalenessSampler
from runtime.grpc.access import rule_of
from runtime.grpc.caller import Caller, set_current
from runtime.grpc.metadata import STALENESS
from runtime.grpc.rpc_error import RpcError
from runtime.process.lifecycle import cancel_and_wait
from runtime.redis.address import RedisAddress
from tests.integration.contexts.test_archived_views import build_request
from tests.support.harness.contexts import QUERY_CONTEXTS
from tests.support.harness.freshness import NO_LIMIT, make_serving
from tests.support.harness.query_calls import TIMEOUT, Call
from tests.support.harness.read_model import ARCHIVED_AT, INCARNATION

ID, MISSING = "x-1", "x-2"
VERSION = 3
STALE = 86_400_000
"""Milliseconds since the first event that a parked view lacks."""


@dataclass(frozen=True)
class Method:
    """A method whose objects alone know their owner."""

    context: QueryContext
    name: str
    query: Query | WatchQuery

    @property
    def view(self) -> View:
        return self.query.view

    @property
    def views(self) -> list[View]:
        others = self.query.others if isinstance(self.query, Query) else ()
        return [self.view, *others]

    def request(self, view_id: str) -> Any:
        request = build_request(GetMessageClass(self.context.service.methods_by_name[self.name].input_type))
        for field, value in request.ListFields():
            if field.is_repeated:
                value[:] = [view_id]
            else:
                setattr(request, field.name, view_id)
        if "month" in request.DESCRIPTOR.fields_by_name:
            request.month = "2026-11"
        return request


def list_methods() -> Iterator[Method]:
    """Yield the methods that compare the owner of a view with the caller."""
    for context in QUERY_CONTEXTS:
        queries: dict[str, Query | WatchQuery] = {**context.queries, **context.watches}
        for name, query in queries.items():
            rule = rule_of(context.service.methods_by_name[name])
            if rule.owner and not rule.is_in_request:
                yield Method(context, name, query)


def is_watch(method: Method) -> bool:
    return isinstance(method.query, WatchQuery)


METHODS = list(list_methods())
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def test_every_view_tells_its_owner() -> None:
    nothing: Any = None
    for method in METHODS:
        models: Any = {view: nothing for query in _list_queries(method.context) for view in query}
        service = query_service(method.context, models, nothing, nothing)
        assert method.name in service.compares_owners


def _list_queries(context: QueryContext) -> Iterator[tuple[View, ...]]:
    for query in context.queries.values():
        yield (query.view, *query.others)
    for watch in context.watches.values():
        yield (watch.view,)


class Answers:
    """Calls one method in one process."""

    def __init__(self, method: Method, redis: Redis, reader: RedisClient, url: str) -> None:
        self._method, self._redis, self._reader, self._url = method, redis, reader, url

    async def put(self, state: str, owner: str) -> None:
        """Write a view, its history, and what else its queries need."""
        view = self._method.view
        message = build_request(view.message)  # all ids are the same
        for field in view.message.DESCRIPTOR.fields:
            if field.name.endswith("_id"):
                setattr(message, field.name, ID)
        setattr(message, view.owner, owner)
        message.version = VERSION
        fields: dict[Any, Any] = {"data": message.SerializeToString(), "version": VERSION, "owner": owner}
        match state:
            case "archived":
                fields = {"version": VERSION, "archived": ARCHIVED_AT, "owner": owner}
            case "archived by an earlier release":
                fields = {"version": VERSION, "archived": ARCHIVED_AT}
            case "of an earlier release":
                del fields["owner"]
            case "parked":
                since = int(time() * 1000) - STALE
                record = {"stale_since": since, "attempts": 6, "version": VERSION + 1, "state": "parked"}
                fields["parked"] = msgspec.json.encode(record)
            case "unreadable":
                fields["data"] = b"\xff\xff"
            case "unreadable version":
                fields["version"] = "x"
            case "without data":
                del fields["data"]
        key = view.key(ID)
        await self._redis.delete(key)
        if state == "another type":
            await self._redis.set(key, "x")
        else:
            await self._redis.hset(key, mapping=fields)
        await self._redis.hset(view.history(ID), mapping=self._make_history(view))
        for each in self._method.views:
            await self._redis.mset({each.ready: INCARNATION, each.build: f"{INCARNATION}/build"})
            await self._redis.hset(each.as_of, mapping=dict.fromkeys(range(PARTITIONS), int(time() * 1000)))

    def _make_history(self, view: View) -> dict[Any, Any]:
        at = datetime(2026, 11, 3, tzinfo=UTC)
        lines = {version: Transaction(version=version) for version in range(1, VERSION + 1)}
        for line in lines.values():
            line.book_time.FromDatetime(at)
        is_ledger = view.message is AccountLedger
        return {str(at): line.SerializeToString() if is_ledger else b"" for at, line in lines.items()}

    async def notify(self) -> None:
        """Tell watches that the view has changed."""
        await self._redis.publish(self._method.view.change_channel, msgspec.msgpack.encode([[ID], []]))

    async def ask(self, view_id: str, who: Caller) -> tuple[str, int]:
        """Return the answer to a call, with MISSING for its id, and the bound on its age in seconds."""
        call = RecordingCall()
        try:
            data = await self._ask(call, view_id, who)
            answer = repr(data)
        except RpcError as error:
            answer = f"{error.code} {error.reason} {error.message} {error.metadata} {error.retry_after}"
        return answer.replace(view_id, "ID"), int(call.metadata.get(STALENESS, 0)) // 1000

    async def _ask(self, call: "RecordingCall", view_id: str, who: Caller) -> Any:
        async with self.run(call, view_id, who) as running:
            if not isinstance(self._method.query, WatchQuery):
                return await running
            response = asyncio.ensure_future(call.responses.get())
            await asyncio.wait({running, response}, timeout=TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                response.cancel()
                return running.result()
            return response.result().partition(ID.encode())[1]  # its resume token is of this moment

    @asynccontextmanager
    async def run(self, call: "RecordingCall", view_id: str, who: Caller) -> AsyncIterator[asyncio.Task[Any]]:
        method = self._method
        notifications = ChangeNotifications(RedisAddress(self._url), self._reader, [method.view])
        models = {
            view: make_serving(view, self._reader, notifications)
            for views in _list_queries(method.context)
            for view in views
        }
        await StalenessSampler(self._reader, [models[view] for view in method.views]).take()
        service = query_service(method.context, models, notifications, NO_LIMIT)
        stopping = asyncio.Event()
        notified = asyncio.create_task(notifications.run(stopping))

        async def handle() -> Any:
            set_current(who)
            context: Any = call
            return await service.handlers[method.name](method.request(view_id), context)

        running = asyncio.create_task(handle())
        try:
            yield running
        finally:
            await cancel_and_wait(running)
            stopping.set()
            await notified


class RecordingCall(Call):
    """Keeps the trailing metadata."""

    def __init__(self) -> None:
        super().__init__(5.0)
        self.metadata: dict[str, str] = {}

    def set_trailing_metadata(self, metadata: Any) -> None:
        self.metadata.update(metadata)


@pytest.fixture
async def answers(method: Method, redis_url: str) -> AsyncIterator[Answers]:
    async with Redis.from_url(redis_url) as redis, RedisClient(RedisAddress(redis_url)) as reader:
        yield Answers(method, redis, reader, redis_url)


def make_caller(method: Method, reach: str, subject: str = "ada", on_behalf_of: str | None = None) -> Caller:
    name = method.context.name
    return Caller(subject, frozenset({f"{name}.read", f"{name}.{reach}"}), on_behalf_of)


STATES = (
    *("live", "of an earlier release", "archived", "archived by an earlier release", "parked", "unreadable"),
    *("unreadable version", "without data", "another type"),
)
HIDDEN = ("archived by an earlier release", "another type")
"""States in which the view tells its owner no longer: only callers who reach all objects find it."""


@each_method
async def test_the_view_of_another_is_answered_as_a_missing_one(method: Method, answers: Answers) -> None:
    ada, bob, clerk = (
        make_caller(method, "own"),
        make_caller(method, "own", "bob"),
        make_caller(method, "all"),
    )
    await answers.put("live", "ada")
    missing, _ = await answers.ask(MISSING, bob)
    assert "NOT_FOUND" in missing or method.name.startswith("BatchGet")
    for state in STATES:
        await answers.put(state, "ada")
        foreign, age = await answers.ask(ID, bob)
        assert (state, foreign) == (state, missing)
        assert age < STALE / 2_000, "a parked view shows in the staleness"
        if state in HIDDEN:
            continue
        own, age = await answers.ask(ID, ada)
        assert own != missing, state
        assert (state, own) == (state, (await answers.ask(ID, clerk))[0])
        assert state != "parked" or age > STALE / 2_000 or is_watch(method)


@each_method
async def test_a_view_is_shown_to_who_acts_for_its_owner(method: Method, answers: Answers) -> None:
    await answers.put("live", "ada")
    shown, _ = await answers.ask(ID, make_caller(method, "own", "ada"))
    for_ada, _ = await answers.ask(ID, make_caller(method, "own", "shop", "ada"))
    for_bob, _ = await answers.ask(ID, make_caller(method, "own", "shop", "bob"))
    assert shown == for_ada != for_bob


@each_method
async def test_a_view_without_an_owner_is_for_callers_who_reach_all(method: Method, answers: Answers) -> None:
    await answers.put("live", "")
    own = make_caller(method, "own")
    missing, _ = await answers.ask(MISSING, own)
    assert (await answers.ask(ID, own))[0] == missing
    assert (await answers.ask(ID, make_caller(method, "all")))[0] != missing


@pytest.mark.parametrize("method", [each for each in METHODS if is_watch(each)], ids=lambda each: each.name)
async def test_a_watch_ends_when_the_object_is_no_longer_the_callers(
    method: Method, answers: Answers
) -> None:
    await answers.put("live", "ada")
    call = RecordingCall()
    async with answers.run(call, ID, make_caller(method, "own")) as running:
        await asyncio.wait_for(call.responses.get(), TIMEOUT)
        await answers.put("live", "bob")
        await answers.notify()
        with pytest.raises(RpcError) as caught:
            await asyncio.wait_for(running, TIMEOUT)
    assert caught.value.code is StatusCode.NOT_FOUND
    assert call.responses.empty()
