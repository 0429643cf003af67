"""Ends calls whose message does not arrive: each would keep its memory until its connection ends.

How it works. `limit` remembers the task of a call, and the handlers of an observed server forget it, since
they begin once the message is there. `run` cancels what is remembered for too long. One loop for all calls
costs less than a timer for each.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import grpc

MESSAGE_TIMEOUT = 20.0
"""Seconds within which the message of a call has to arrive."""
INTERVAL = 1.0
"""Seconds between two looks at the calls that wait for their message."""
MAX_METHODS = 500
"""Handlers of methods that are kept, so that each is wrapped once."""


class LateMessages:
    """The calls of a server that wait for their message."""

    def __init__(self) -> None:
        self._since: dict[asyncio.Task[Any] | None, float] = {}
        """When each call began to wait, the oldest first."""

    @contextmanager
    def limit(self) -> Iterator[None]:
        """Limit the time until a handler begins, for the call of the current task.

        Raises:
            TimeoutError: the message has not arrived in time.
        """
        task = asyncio.current_task()
        self._since[task] = asyncio.get_running_loop().time()
        try:
            yield
        except asyncio.CancelledError:
            if task is None or task not in self._since or not self._is_late(self._since[task]):
                raise
            task.uncancel()
            raise TimeoutError from None
        finally:
            self._since.pop(task, None)

    def observe(self, handler: grpc.GenericRpcHandler) -> grpc.GenericRpcHandler:
        """Return a handler that notices when the handler of a call begins."""
        return _Observed(handler, lambda: self._since.pop(asyncio.current_task(), None))

    async def run(self, is_running: Callable[[], bool]) -> None:
        """Cancel the calls whose message is late, while the server runs."""
        while is_running():
            await asyncio.sleep(INTERVAL)
            for task, since in list(self._since.items()):
                if not self._is_late(since):
                    break
                if task is not None:
                    task.cancel()

    def _is_late(self, since: float) -> bool:
        return asyncio.get_running_loop().time() - since >= MESSAGE_TIMEOUT


class _Observed(grpc.GenericRpcHandler):
    """A handler whose handlers of calls with one message call a function when they begin."""

    def __init__(self, handler: grpc.GenericRpcHandler, on_begin: Callable[[], object]) -> None:
        self._handler = handler
        self._on_begin = on_begin
        self._wrap_all = lru_cache(MAX_METHODS)(self._wrap_uncached)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        found = self._handler.service(handler_call_details)
        return None if found is None else self._wrap_all(found)

    def _wrap_uncached(self, handler: Any) -> Any:
        names = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
        behaviors = {name: getattr(handler, name) for name in names}
        return handler._replace(**{name: self._wrap(each) for name, each in behaviors.items() if each})

    def _wrap(self, behavior: Any) -> Any:
        if inspect.isasyncgenfunction(behavior):

            async def begin_stream(request: Any, context: Any) -> AsyncIterator[Any]:
                self._on_begin()
                async for response in behavior(request, context):
                    yield response

            return begin_stream

        async def begin(request: Any, context: Any) -> Any:
            self._on_begin()
            return await behavior(request, context)

        return begin
