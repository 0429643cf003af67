"""A grpc.aio server that no call can end, and that answers every call.

How it works. grpc.aio 1.85 decodes the path of every call as UTF-8 in its only loop, so one call with another
byte ends the loop and the server with it. gRPC can also hand calls over by registered method, and then nobody
decodes a path. `Server` therefore registers all its methods, and takes their calls in one task each
(`_CallIntake`). Calls of all other methods are taken in a further task, as calls of UNKNOWN_METHOD, because
their path cannot be read without decoding it. grpc.aio's own loop only starts the server and waits for its
end. Calls without a complete message, which grpc.aio would leave open, get REQUEST_INVALID: at once if they
have ended, otherwise after MESSAGE_TIMEOUT (`late_messages`). So do messages that the services of gRPC
itself (health, reflection) cannot decode.

The methods of grpc.aio that are overridden or called here are private; tests/unit/runtime/test_aio_server.py
checks them, and pyproject.toml excludes other minor versions.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc._cython import cygrpc
from grpc.aio import _server

from runtime.grpc import errors
from runtime.grpc.aio.observed_handlers import ObservedHandlers
from runtime.grpc.late_messages import MESSAGE_TIMEOUT, RETRY_AFTER, CrowdedOutError, LateMessages
from runtime.grpc.metrics import CALLS_SHED
from runtime.grpc.rpc_error import RpcError

UNKNOWN_METHOD = "unknown"
"""The method of calls of unknown methods, instead of the path in the call."""

Options = Sequence[tuple[str, int]]


class Server(_server.Server):
    """A grpc.aio server that takes calls by method.

    Args:
        options: of gRPC core.
        intake: calls of one method that are taken at a time. More than one are a burden unless handlers let
            calls wait, for instance for a place of their caller.
    """

    def __init__(self, options: Options, intake: int = 1) -> None:
        # Not super().__init__, which would make grpc.aio's own intake.
        self._loop = cygrpc.get_working_loop()
        arguments = _server._augment_channel_arguments(tuple(options), None)
        self._server = _CallIntake(self._loop, None, (), None, arguments, None)
        self._server.size = intake

    def add_methods(self, handlers: grpc.GenericRpcHandler, paths: Iterable[str]) -> None:
        """Let `handlers` find the handlers of these methods, and those of calls of unknown methods."""
        self.add_generic_rpc_handlers([handlers])
        # None: no handler is registered for the path, so gRPC asks the generic one.
        self._server.add_registered_method_handlers(dict.fromkeys(paths))

    async def wait_failed(self) -> None:
        """Return when the server is stopped.

        Raises:
            Exception: the server has ended by itself.
        """
        with suppress(cygrpc._RequestCallError):
            await asyncio.shield(self._server.ended)


class _CallIntake(cygrpc.AioServer):  # type: ignore[misc] # has no stub
    """Takes calls by method."""

    size = 1
    """Calls of one method that are taken at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *arguments: Any) -> None:
        super().__init__(loop, *arguments)
        self._event_loop = loop
        self._handlers: list[Any] = []
        self._paths: dict[str, Any] = {}
        self.ended: asyncio.Future[None] = loop.create_future()
        """Fails when the intake of a method has ended, and so ends grpc.aio's loop."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._late_messages = LateMessages()

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        super().add_generic_rpc_handlers(handlers)
        if hasattr(self, "_handlers"):  # the constructor of grpc.aio calls this method with no handlers
            self._handlers.extend(ObservedHandlers(each, self._late_messages.forget) for each in handlers)

    def add_registered_method_handlers(self, handlers: dict[str, Any]) -> None:
        super().add_registered_method_handlers(handlers)
        self._paths.update(handlers)

    def _make_request_call_future(self, path: bytes | None) -> "asyncio.Future[None]":
        """Start the intake of a method, None for all that are not registered; called once for each."""
        resolver = cygrpc._MethodResolver(self._handlers, self._paths)
        if path is None:
            self._spawn(self._late_messages.run(self.is_running))
            self._spawn(self._take_calls(UNKNOWN_METHOD, self._request_call, resolver))
        else:
            request_call = partial(self._request_registered_call, path)
            for _ in range(self.size):
                self._spawn(self._take_calls(path.decode(), request_call, resolver))
        return self.ended

    async def _take_calls(
        self, method: str, request_call: Callable[[], Awaitable[Any]], resolver: Any
    ) -> None:
        try:
            while self.is_running():
                try:
                    state = await request_call()
                except cygrpc._RequestCallError:  # the server stops, or the client left before
                    continue
                handling = self._handle_call(method, resolver, state)
                self._spawn(cygrpc._schedule_rpc_coro(handling, state, self._event_loop, method))
        except Exception as error:
            self._end(error)
        else:
            self._end(cygrpc._RequestCallError())  # grpc.aio's loop takes it for the end of a stopping server

    async def _handle_call(self, method: str, resolver: Any, state: Any) -> None:
        error = RpcError("REQUEST_INVALID", "the call has no complete message")
        try:
            with self._late_messages.limit():
                await cygrpc._handle_rpc(method, resolver, (), state, self._event_loop, False)
        except DecodeError:
            error = RpcError("REQUEST_INVALID", f"not a request of {method}")
        except CrowdedOutError:
            CALLS_SHED.count("late messages")
            error = RpcError("OVERLOADED", "too many calls wait for their message", retry_after=RETRY_AFTER)
        except TimeoutError:
            problem = f"no complete message arrived within {MESSAGE_TIMEOUT:.0f} seconds"
            error = RpcError("REQUEST_INVALID", problem)
        context = cygrpc._ServicerContext(state, None, None, self._event_loop)
        if not context.done():
            try:
                await errors.abort(context, error)
            except cygrpc.ExecuteBatchError as failure:  # the client has left
                raise asyncio.CancelledError from failure

    def _end(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)

    def _spawn(self, work: Any) -> None:
        task = self._event_loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
