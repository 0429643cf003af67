"""Calls of a query server's handlers without a server."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from google.protobuf.message_factory import GetMessageClass

from contracts.view_layout import View
from query_server.change_notifications import ChangeNotifications
from query_server.read_models import ServingReadModel
from query_server.search.follower import IndexFollower
from query_server.service import QueryContext, query_service
from runtime.grpc import caller
from runtime.grpc.caller import Caller
from runtime.grpc.method import Handler
from runtime.grpc.waits import compute_deadline
from runtime.process.lifecycle import cancel_and_wait
from tests.support.harness.freshness import NO_LIMIT, NO_NOTIFICATIONS, make_serving
from tests.support.harness.read_model import ReadModel

TIMEOUT = 20.0
"""Seconds for the next response of a watch."""


class Call:
    """The context of a call; keeps the responses of a watch."""

    def __init__(self, remaining: float | None = None) -> None:
        self._deadline = compute_deadline(remaining)
        self.responses: asyncio.Queue[bytes] = asyncio.Queue()

    def time_remaining(self) -> float | None:
        return self._deadline and self._deadline - asyncio.get_running_loop().time()

    def set_trailing_metadata(self, _: object) -> None:
        pass

    async def send_initial_metadata(self, _: object) -> None:
        pass

    async def write(self, response: bytes) -> None:
        self.responses.put_nowait(response)


class QueryCalls:
    """Calls the methods of a context's QueryService, which follows the serving generation."""

    def __init__(
        self,
        model: ReadModel,
        context: QueryContext,
        notifications: ChangeNotifications = NO_NOTIFICATIONS,
        max_wait: float = 5.0,
        indexes: Mapping[str, IndexFollower] = {},
        models: Mapping[View, ServingReadModel] | None = None,
    ) -> None:
        queries, watches = context.queries.values(), context.watches.values()
        views = {view for query in queries for view in (query.view, *query.others)}
        views |= {watch.view for watch in watches}
        self.notifications = notifications
        self.models = models or {
            view: make_serving(view, model.reader, notifications, max_wait) for view in views
        }
        service = query_service(context, self.models, notifications, NO_LIMIT, indexes)
        self._handlers: Mapping[str, Handler] = service.handlers
        self._methods = context.service.methods_by_name

    async def call(self, method: str, remaining: float | None = None, **request: Any) -> Any:
        """Return the response of a unary method to a request with these fields."""
        context: Any = Call(remaining)
        data: Any = await self._handlers[method](self._build_request(method, request), context)
        return self._parse(method, data)

    @asynccontextmanager
    async def watch(
        self, method: str, remaining: float | None = None, **request: Any
    ) -> AsyncIterator["Watch"]:
        """Yield an open watch; raises the error with which it has ended."""
        context: Any = Call(remaining)

        async def run() -> None:
            caller.set_current(Caller("test", frozenset()))
            await self._handlers[method](self._build_request(method, request), context)

        running = asyncio.create_task(run())
        try:
            yield Watch(context, running, lambda data: self._parse(method, data))
        finally:
            await asyncio.wait_for(cancel_and_wait(running), TIMEOUT)

    def _build_request(self, method: str, fields: Mapping[str, Any]) -> Any:
        return GetMessageClass(self._methods[method].input_type)(**fields)

    def _parse(self, method: str, data: bytes) -> Any:
        return GetMessageClass(self._methods[method].output_type).FromString(data)


class Watch:
    """A watch call."""

    def __init__(self, context: Call, running: asyncio.Task[None], parse: Any) -> None:
        self._context = context
        self._parse = parse
        self.running = running

    async def read(self) -> Any:
        """Return the next response; raises the error of a call that has ended."""
        reading = asyncio.ensure_future(self._context.responses.get())
        await asyncio.wait({reading, self.running}, timeout=TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            reading.cancel()
            assert self.running.done(), f"no response within {TIMEOUT} s"
            self.running.result()
            raise AssertionError("the call has ended")
        return self._parse(reading.result())

    @property
    def is_quiet(self) -> bool:
        """Whether the call is open and every response was read."""
        return self._context.responses.empty() and not self.running.done()
