"""The types that interceptors share: methods, handlers and interceptors."""

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
"""Takes a request (bytes until `validation` has decoded it) and the call's context; returns a message or its
bytes. The handler of a streaming method writes its responses to the context and returns None."""


@dataclass(frozen=True, slots=True)
class Method:
    """The static facts about a method of a service."""

    path: str
    """`/<package>.<Service>/<Method>`"""
    request: type[Message]
    scope: str
    """The scope that callers need."""
    streams: bool
    """Whether the response is a stream of messages."""

    @classmethod
    def of(cls, method: MethodDescriptor) -> "Method":
        """Return the method of a descriptor.

        Raises:
            StartError: the method has no access rule.
        """
        return cls(
            path=f"/{method.containing_service.full_name}/{method.name}",
            request=GetMessageClass(method.input_type),
            scope=access.scope_of(method),
            streams=method.server_streaming,
        )


Interceptor = Callable[[Method, Handler], Handler]
"""Wraps a method's handler. It is called once per method, when the server is built."""
