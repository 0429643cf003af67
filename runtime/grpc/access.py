"""Who may call a method: the rule that stands beside it in its proto. Without one nobody may."""

from diptych.access.v1 import access_pb2
from google.protobuf.descriptor import MethodDescriptor

from runtime.process.start_error import StartError


def scope_of(method: MethodDescriptor) -> str:
    """Return the scope that a caller of this method must have.

    Raises:
        StartError: the method has no rule.
    """
    scope: str = method.GetOptions().Extensions[access_pb2.rule].scope
    if not scope:
        raise StartError(f"{method.full_name} has no option diptych.access.v1.rule, so nobody may call it")
    return scope
