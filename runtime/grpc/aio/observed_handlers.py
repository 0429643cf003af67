"""Notices when the handler of a call begins, which is when grpc.aio has received the message of the call."""

import inspect
from collections.abc import AsyncIterator, Callable
from functools import lru_cache
from typing import Any

import grpc

MAX_METHODS = 500
"""Handlers of methods that are kept, so that each is wrapped once."""


class ObservedHandlers(grpc.GenericRpcHandler):
    """Finds the handlers of another one, and calls a function when one of them begins.

    Args:
        handlers: the other one.
        on_begin: called in the task of the call.
    """

    def __init__(self, handlers: grpc.GenericRpcHandler, on_begin: Callable[[], object]) -> None:
        self._handlers = handlers
        self._on_begin = on_begin
        self._wrap_all = lru_cache(MAX_METHODS)(self._wrap_uncached)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        found = self._handlers.service(handler_call_details)
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
