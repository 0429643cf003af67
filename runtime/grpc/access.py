"""Access rules, from options of the methods in their protos: the scope, and whether calls are recorded."""

from diptych.access.v1 import access_pb2
from google.protobuf.descriptor import MethodDescriptor

from runtime.process.start_error import StartError


def scope_of(method: MethodDescriptor) -> str:
    """Return the scope that callers of a method need.

    Raises:
        StartError: the method has no access rule; without one nobody may call it.
    """
    scope: str = method.GetOptions().Extensions[access_pb2.rule].scope
    if not scope:
        raise StartError(f"{method.full_name} has no option diptych.access.v1.rule with a scope")
    return scope


def recorded_ids_of(method: MethodDescriptor) -> tuple[str, ...] | None:
    """Return the fields with the ids of the objects that a method looks at; None if that is not recorded."""
    options = method.GetOptions()
    if not options.HasExtension(access_pb2.recorded_read):
        return None
    return tuple(options.Extensions[access_pb2.recorded_read].ids)
