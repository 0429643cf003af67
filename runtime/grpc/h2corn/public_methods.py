"""The public services on h2corn: the methods of health, and of reflection."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2

from runtime.grpc.h2corn.application import Serve
from runtime.grpc.h2corn.call import Call
from runtime.grpc.h2corn.messages import Receive, read_messages
from runtime.grpc.health import Health
from runtime.grpc.method import Context, Handler
from runtime.grpc.routes import Route
from runtime.grpc.rpc_error import RpcError

HEALTH: Any = health_pb2.DESCRIPTOR.services_by_name["Health"]


def create_health_routes(health: Health) -> dict[str, Route]:
    """Return the routes of the health service by path."""
    routes = {}
    for method in HEALTH.methods:
        make_handler = _stream if method.server_streaming else _respond
        handler = make_handler(getattr(health, method.name), GetMessageClass(method.input_type))
        routes[f"/{HEALTH.full_name}/{method.name}"] = Route(handler, method.server_streaming)
    return routes


def _respond(method: Any, request_type: Any) -> Handler:
    async def respond(request: bytes, context: Context) -> Any:
        return await method(_decode(request, request_type), context)

    return respond


def _stream(method: Any, request_type: Any) -> Handler:
    async def stream(request: bytes, context: Context) -> None:
        async for response in method(_decode(request, request_type), context):
            await context.write(response)

    return stream


def _decode(request: bytes, request_type: Any) -> Any:
    try:
        return request_type.FromString(request)
    except DecodeError:
        raise RpcError("REQUEST_INVALID", f"not a {request_type.DESCRIPTOR.full_name}") from None


def create_reflection(names: Sequence[str]) -> dict[str, Serve]:
    """Return the method of reflection by path.

    Args:
        names: the services that it describes, besides health and itself.
    """
    from grpc_reflection.v1alpha import reflection  # the import takes a tenth of a second
    from grpc_reflection.v1alpha.reflection import ReflectionServicer
    from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

    servicer: Any = ReflectionServicer([*names, HEALTH.full_name, reflection.SERVICE_NAME])

    async def serve(receive: Receive, call: Call) -> None:
        async for message in read_messages(receive):
            request = _decode(message, ServerReflectionRequest)
            for response in servicer.ServerReflectionInfo(iter([request]), None):
                await call.write(response)

    return {f"/{reflection.SERVICE_NAME}/ServerReflectionInfo": serve}
