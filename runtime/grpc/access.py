"""Access rules: the scope that each method requires, from an option of the method in its proto."""

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
