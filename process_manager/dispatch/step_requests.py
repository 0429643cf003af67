"""The methods that take the requests of steps, and the bytes that are sent. Pure."""

from functools import cache
from typing import Any
from uuid import UUID

from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import Message


def method_of(request: Message | type[Message]) -> MethodDescriptor:
    """Return the descriptor of the method that takes this request.

    Raises:
        LookupError: no service in the file of the request's message takes it.
    """
    return _find_method(request.DESCRIPTOR)


@cache
def _find_method(input_type: Descriptor) -> MethodDescriptor:
    for service in input_type.file.services_by_name.values():
        for method in service.methods:
            if method.input_type is input_type:
                return method
    raise LookupError(f"no method takes {input_type.full_name}")


def path_of(method: MethodDescriptor) -> str:
    """Return a method's path, `/<package>.<Service>/<Method>`."""
    return f"/{method.containing_service.full_name}/{method.name}"


def serialize_with_id(request: Message, request_id: UUID) -> bytes:
    """Return a request as bytes, with this request id; a query has none."""
    if "request_id" not in request.DESCRIPTOR.fields_by_name:
        return request.SerializeToString(deterministic=True)
    copy: Any = type(request)()
    copy.CopyFrom(request)
    copy.request_id = str(request_id)
    return bytes(copy.SerializeToString(deterministic=True))
