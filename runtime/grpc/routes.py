"""From a method's name to its handler, wrapped once in everything that a call passes."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
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
_A_GAP, _THE_END = 4, 12
"""So many ticks (of 2 ms) since the last call tell that none waits, while calls are served and while they are
refused: one that waits comes within a tick, and one whose caller is kept from running within a few."""
_SERVING_ON = 0.2
_REFUSING = 4.0
"""Seconds to wait for such a gap, first while calls are served, then while they are refused, which costs
little; a busy machine may need many tries for ticks that are on time."""
_RETRY = 1.0
"""Seconds after which a caller may find another server, or this one's successor."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service and the handlers of its methods, by name.

    A handler is `async (request, context) -> response`, a message or its bytes; that of a streaming method
    writes its responses to the context. It raises `runtime.grpc.rpc_error.RpcError` to refuse.
    """

    descriptor: ServiceDescriptor
    handlers: Mapping[str, Handler]


class Routes(grpc.GenericRpcHandler):
    """Every method's handler. Any other method is refused, and every method once the server stops."""

    def __init__(self, services: Sequence[Service], interceptors: Sequence[Interceptor]) -> None:
        """Wrap the handlers.

        Raises:
            StartError: a method has no access rule, or no handler.
        """
        self._handlers: dict[str, MethodHandler] = {}
        self._stopping = False
        self._arrived = 0
        for service in services:
            _check_complete(service)
            for name, handler in service.handlers.items():
                method = Method.of(service.descriptor.methods_by_name[name])
                self._handlers[method.path] = _wrapped(method, handler, interceptors)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> MethodHandler:
        """Return the handler of a call."""
        self._arrived += 1
        metadata.enter(handler_call_details.invocation_metadata or ())
        path = handler_call_details.method
        if self._stopping:
            return _refusing(RpcError("STOPPING", "the server stops", retry_after=_RETRY))
        if found := self._handlers.get(path):
            return found
        return _refusing(RpcError("METHOD_UNKNOWN", f"there is no method {path}", {"method": path}))

    async def close(self) -> None:
        """Return at a moment when no call waits to be handed over, after which the server can stop.

        gRPC cancels what it has received but not yet handed over when a server stops: under load most of
        the calls under way. Their callers would see CANCELLED, which nobody retries. Calls are served until
        there is a gap between them, or for a moment; then they are refused with UNAVAILABLE until none comes.
        """
        await self._gap_within(_SERVING_ON, _A_GAP)
        self._stopping = True
        await self._gap_within(_REFUSING, _THE_END)

    async def _gap_within(self, seconds: float, ticks: int) -> None:
        clock = asyncio.get_running_loop().time
        end, calm = clock() + seconds, 0
        while calm < ticks and clock() < end:
            before, start = self._arrived, clock()
            await asyncio.sleep(_TICK)
            # A tick that took longer says nothing: this process did not run, and calls may wait for it.
            on_time = clock() - start < 3 * _TICK
            calm = calm + on_time if self._arrived == before else 0


def _check_complete(service: Service) -> None:
    if different := set(service.descriptor.methods_by_name).symmetric_difference(service.handlers):
        raise StartError(
            f"{service.descriptor.full_name}: methods without handlers or handlers without methods: "
            + ", ".join(sorted(different))
        )


def _wrapped(method: Method, handler: Handler, interceptors: Sequence[Interceptor]) -> MethodHandler:
    for interceptor in reversed(interceptors):
        handler = interceptor(method, handler)
    # Without a deserializer of gRPC's the chain gets the bytes: nobody unknown makes us parse anything.
    make: Callable[..., MethodHandler] = (
        grpc.unary_stream_rpc_method_handler if method.streams else grpc.unary_unary_rpc_method_handler
    )
    return make(handler, response_serializer=_serialized)


def _serialized(response: Any) -> bytes:
    return response if type(response) is bytes else response.SerializeToString()


def _refusing(error: RpcError) -> MethodHandler:
    """Return a handler that refuses a call, whatever streams it was made with."""

    async def refused(_requests: object, context: Context) -> None:
        await errors.abort(context, error)

    return grpc.stream_stream_rpc_method_handler(refused)
