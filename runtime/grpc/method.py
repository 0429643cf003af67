"""What the interceptors share: a method as its descriptor tells it, and the form of a handler."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc.aio import ServicerContext

from runtime.grpc import access

Context: TypeAlias = "ServicerContext[Any, Any]"
Handler = Callable[[Any, Context], Awaitable[Any]]
"""Takes a request (bytes until `validation` has decoded it) and the call's context; answers with a message or
its bytes. The handler of a streaming method writes its answers to the context and returns None."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a service, all that is known of it before a call."""

    path: str
    """As gRPC names it, `/<package>.<Service>/<Method>`."""
    request: type[Message]
    scope: str
    """What a caller must be granted."""
    streams: bool
    """Whether it answers with a stream of messages."""

    @classmethod
    def of(cls, method: MethodDescriptor) -> "Method":
        """Return what a descriptor tells.

        Raises:
            StartError: it tells not who may call.
        """
        return cls(
            path=f"/{method.containing_service.full_name}/{method.name}",
            request=GetMessageClass(method.input_type),
            scope=access.scope_of(method),
            streams=method.server_streaming,
        )


Interceptor = Callable[[Method, Handler], Handler]
"""Wraps a method's handler, once, when the server is built."""
