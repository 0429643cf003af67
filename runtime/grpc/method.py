"""The types that interceptors share: methods, handlers and interceptors."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc import StatusCode

from runtime.grpc import access
from runtime.grpc.access import AccessRule
from runtime.grpc.metadata import Metadata


class Context(Protocol):
    """A call, as handlers see it. The contexts of grpc.aio are such, too."""

    def peer(self) -> str:
        """Return the address of the client, as `ipv4:127.0.0.1:40000` or `ipv6:[::1]:40000`."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return facts about the connection: `x509_pem_cert`, the client's certificate, if there is one."""

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline of the call; None if it has none."""

    def trailing_metadata(self) -> Metadata:
        """Return what has been set."""

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        """Set the metadata that is sent with the status."""

    async def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        """Send metadata before the first message."""

    async def write(self, message: Message | bytes) -> None:
        """Send a message of a stream."""

    async def abort(self, code: StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        """End the call with an error."""


Handler = Callable[[Any, Context], Awaitable[Any]]
"""Takes a request (bytes until `validation` has decoded it) and the call's context; returns a message or its
bytes. The handler of a streaming method writes its responses to the context and returns None."""


def serialize(response: Any) -> bytes:
    """Return the bytes of a response, which handlers may return instead of the message."""
    return response if type(response) is bytes else response.SerializeToString()


@dataclass(frozen=True, slots=True)
class Method:
    """The static facts about a method of a service."""

    path: str
    """`/<package>.<Service>/<Method>`"""
    request: type[Message]
    rule: AccessRule
    """Who may call it, and on whose objects."""
    streams: bool
    """Whether the response is a stream of messages."""
    recorded_ids: tuple[str, ...] | None = None
    """The fields of the request with the ids that are recorded with a call; None if calls are not."""

    @classmethod
    def of(cls, method: MethodDescriptor, *, compares_owner: bool = False) -> "Method":
        """Return the method of a descriptor.

        Args:
            method: the descriptor.
            compares_owner: whether its handler compares the owner of the object with the caller.

        Raises:
            StartError: the method has no access rule.
        """
        return cls(
            path=f"/{method.containing_service.full_name}/{method.name}",
            request=GetMessageClass(method.input_type),
            rule=access.rule_of(method, compares_owner=compares_owner),
            streams=method.server_streaming,
            recorded_ids=access.recorded_ids_of(method),
        )


Interceptor = Callable[[Method, Handler], Handler]
"""Wraps a method's handler. It is called once per method, when the server is built."""
