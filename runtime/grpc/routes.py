"""The routes of a server: method names to handlers, each wrapped once in the interceptors.

How it works. gRPC calls `Routes.service` for every call that it has received and handed over to Python. The
rest of this module makes the server stop without failing a call.

- When a server stops, gRPC cancels the calls that it has received but not handed over: under load, most of
  the calls in progress. Their callers would see CANCELLED, which clients do not retry.
- `drain` therefore waits until no call waits to be handed over. It serves calls until it finds a gap between
  them, for at most 0.2 seconds. Then it rejects calls with UNAVAILABLE, which clients retry elsewhere, until
  it finds a longer gap, for at most 4 seconds.
- A gap is a number of consecutive ticks of 2 ms without a new call. A late tick does not count: the process
  did not run in the meantime, so calls may be waiting.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from runtime.grpc import errors, metadata
from runtime.grpc.method import Context, Handler, Interceptor, Method
from runtime.grpc.rpc_error import RpcError
from runtime.process.start_error import StartError

MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_TICK = 0.002
"""Seconds between two checks for new calls."""
_SERVING_GAP, _REJECTING_GAP = 4, 12
"""Ticks without a new call that make a gap. A waiting call is handed over within a tick; a call whose client
gets little CPU time arrives within a few ticks."""
_MAX_SERVING_TIME = 0.2
_MAX_REJECTING_TIME = 4.0
"""Seconds to wait for a gap. Rejecting costs little, and on a busy machine it may take long until enough
ticks are on time."""
_RETRY_AFTER = 1.0
"""Seconds after which clients may reach another server, or this one's successor."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service and the handlers of its methods, by method name.

    A handler (see `runtime.grpc.method.Handler`) raises `RpcError` to end a call with an error.
    """

    descriptor: ServiceDescriptor
    handlers: Mapping[str, Handler]


class Routes(grpc.GenericRpcHandler):
    """The handlers of all methods. Calls of unknown methods are rejected, and after `drain` all calls."""

    def __init__(
        self,
        services: Sequence[Service],
        interceptors: Sequence[Interceptor],
        on_unknown: Callable[[Context], Awaitable[None]],
    ) -> None:
        """Wrap the handlers in the interceptors, the first being the outermost.

        Args:
            services: the services.
            interceptors: of all methods.
            on_unknown: called before a call of an unknown method is answered.

        Raises:
            StartError: a method has no access rule or no handler, or a handler has no method.
        """
        self._handlers: dict[str, MethodHandler] = {}
        self._on_unknown = on_unknown
        self._rejecting = False
        self._call_count = 0
        for service in services:
            _check_complete(service)
            for name, handler in service.handlers.items():
                method = Method.of(service.descriptor.methods_by_name[name])
                self._handlers[method.path] = _wrap(method, handler, interceptors)

    @property
    def paths(self) -> Collection[str]:
        """The paths of all methods."""
        return self._handlers.keys()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> MethodHandler:
        """Return the handler of a call; gRPC calls this method when it hands the call over."""
        self._call_count += 1
        metadata.set_current(handler_call_details.invocation_metadata or ())
        if self._rejecting:
            return _create_rejection(RpcError("STOPPING", "the server is stopping", retry_after=_RETRY_AFTER))
        if handler := self._handlers.get(handler_call_details.method):
            return handler
        error = RpcError("METHOD_UNKNOWN", "this server has no such method")
        return _create_rejection(error, self._on_unknown)

    async def drain(self) -> None:
        """Reject new calls, and return when none waits to be handed over, so that the server can stop."""
        await self._wait_for_gap(_MAX_SERVING_TIME, _SERVING_GAP)
        self._rejecting = True
        await self._wait_for_gap(_MAX_REJECTING_TIME, _REJECTING_GAP)

    async def _wait_for_gap(self, max_seconds: float, ticks: int) -> None:
        clock = asyncio.get_running_loop().time
        end, quiet_ticks = clock() + max_seconds, 0
        while quiet_ticks < ticks and clock() < end:
            count, start = self._call_count, clock()
            await asyncio.sleep(_TICK)
            # A late tick neither counts nor resets the count.
            on_time = clock() - start < 3 * _TICK
            quiet_ticks = quiet_ticks + on_time if self._call_count == count else 0


def _check_complete(service: Service) -> None:
    if mismatches := set(service.descriptor.methods_by_name).symmetric_difference(service.handlers):
        raise StartError(
            f"{service.descriptor.full_name}: methods without handlers or handlers without methods: "
            + ", ".join(sorted(mismatches))
        )


def _wrap(method: Method, handler: Handler, interceptors: Sequence[Interceptor]) -> MethodHandler:
    for interceptor in reversed(interceptors):
        handler = interceptor(method, handler)
    # Without a deserializer the interceptors receive bytes, so requests are parsed after authentication.
    make_handler: Callable[..., MethodHandler] = (
        grpc.unary_stream_rpc_method_handler if method.streams else grpc.unary_unary_rpc_method_handler
    )
    return make_handler(handler, response_serializer=_serialize)


def _serialize(response: Any) -> bytes:
    return response if type(response) is bytes else response.SerializeToString()


def _create_rejection(
    error: RpcError, before: Callable[[Context], Awaitable[None]] | None = None
) -> MethodHandler:
    """Return a handler that rejects a call, unary or streaming."""

    async def reject(_requests: object, context: Context) -> None:
        if before is not None:
            await before(context)
        await errors.abort(context, error)

    return grpc.stream_stream_rpc_method_handler(reject)
