"""From a method's name to its handler, wrapped once in everything that a call passes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from runtime.errors import Refusal, StartError
from runtime.grpc import errors
from runtime.grpc.method import Context, Handler, Interceptor, Method

MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True, slots=True)
class Service:
    """A service and the handlers of its methods, by name.

    A handler is `async (request, context) -> response`, a message or its bytes; that of a streaming method
    writes its responses to the context. It raises `runtime.errors.Refusal` to refuse.
    """

    descriptor: ServiceDescriptor
    handlers: Mapping[str, Handler]


class Routes(grpc.GenericRpcHandler):
    """Every method's handler; the name of any other method is answered with `METHOD_UNKNOWN`."""

    def __init__(self, services: Sequence[Service], interceptors: Sequence[Interceptor]) -> None:
        """Wrap the handlers.

        Raises:
            StartError: a method has no access rule, or no handler.
        """
        self._handlers: dict[str, MethodHandler] = {}
        for service in services:
            _check_complete(service)
            for name, handler in service.handlers.items():
                method = Method.of(service.descriptor.methods_by_name[name])
                self._handlers[method.path] = _wrapped(method, handler, interceptors)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> MethodHandler:
        """Return the handler of a call."""
        return self._handlers.get(handler_call_details.method) or _unknown(handler_call_details.method)


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


def _unknown(path: str) -> MethodHandler:
    """Return a handler for a method that is not here, whatever streams it was called with."""

    async def unknown(_requests: object, context: Context) -> None:
        await errors.abort(context, Refusal("METHOD_UNKNOWN", f"there is no method {path}", {"method": path}))

    return grpc.stream_stream_rpc_method_handler(unknown)
