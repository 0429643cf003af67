"""Access rules, from options of the methods in their protos: who may call a method, on whose objects.

How it works. A rule has a scope, the duty that the method is part of, and says whose objects the method works
on. Where objects have owners, callers need one of two scopes more: `<context>.all` reaches all objects,
`<context>.own` those of the caller alone. If the request names the owner, the edge decides before the method
runs, whatever exists (`owners`). Otherwise only the object knows its owner.
"""

from dataclasses import dataclass
from typing import Any

from diptych.access.v1 import access_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from contracts.manifest import context_of
from runtime.grpc.caller import Caller
from runtime.grpc.rpc_error import RpcError
from runtime.process.start_error import StartError

ACT_ON_BEHALF = "act.on-behalf"
"""The scope without which a token must not name a person for whom its caller acts."""


@dataclass(frozen=True, slots=True)
class AccessRule:
    """Who may call a method, and on whose objects."""

    method: str
    """The method's full name."""
    scope: str
    owner: str
    """The field with the owner's id; empty if the method works on any object."""
    is_in_request: bool
    """Whether the field is one of the request."""
    accepts_own: bool
    """Whether the request or the method's handler compares the owner with the caller."""
    own: str
    """The scope that reaches the caller's own objects."""
    all: str
    """The scope that reaches all objects."""

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that reach every object of the method."""
        return (self.scope, self.all) if self.owner else (self.scope,)

    def check(self, who: Caller, path: str) -> None:
        """Check the scopes of a caller.

        Raises:
            RpcError: `SCOPE_MISSING`.
        """
        scopes = who.scopes
        if self.scope not in scopes:
            raise scope_missing(self.scope, path)
        if who.on_behalf_of is not None and ACT_ON_BEHALF not in scopes:
            raise scope_missing(ACT_ON_BEHALF, path)
        if self.owner and self.all not in scopes and not (self.accepts_own and self.own in scopes):
            raise scope_missing(self.own if self.accepts_own else self.all, path)

    def find_owners(self, who: Caller) -> frozenset[str] | None:
        """Return the persons whose objects a caller may reach, or None for everybody's."""
        return None if not self.owner or self.all in who.scopes else who.persons


def rule_of(method: MethodDescriptor, *, compares_owner: bool = False) -> AccessRule:
    """Return the access rule of a method.

    Args:
        method: the method.
        compares_owner: whether its handler compares the owner of the object with the caller.

    Raises:
        StartError: the method has none, so nobody may call it, or one that does not say on whose objects.
    """
    rule: Any = method.GetOptions().Extensions[access_pb2.rule]
    if not rule.scope:
        raise StartError(f"{method.full_name} has no option diptych.access.v1.rule with a scope")
    if bool(rule.owner) == rule.any_object:
        raise StartError(f"{method.full_name}: diptych.access.v1.rule needs either owner or any_object")
    field = method.input_type.fields_by_name.get(rule.owner)
    if field is not None and (field.type != FieldDescriptor.TYPE_STRING or field.is_repeated):
        raise StartError(f"{method.full_name}: the owner in the request, {rule.owner}, is not one string")
    context = context_of(method.containing_service.full_name)
    names = {"own": f"{context}.own", "all": f"{context}.all"}
    is_in_request = field is not None
    return AccessRule(
        method.full_name, rule.scope, rule.owner, is_in_request, is_in_request or compares_owner, **names
    )


def scopes_of(method: MethodDescriptor) -> tuple[str, ...]:
    """Return the scopes of callers who may call a method on every object.

    Raises:
        StartError: the method has no access rule.
    """
    return rule_of(method).scopes


def scope_missing(scope: str, path: str) -> RpcError:
    """Return the error of a call whose caller lacks a scope."""
    return RpcError("SCOPE_MISSING", f"{path} needs the scope {scope}", {"scope": scope, "method": path})


def recorded_ids_of(method: MethodDescriptor) -> tuple[str, ...] | None:
    """Return the fields with the ids of the objects that a method looks at; None if that is not recorded."""
    options = method.GetOptions()
    if not options.HasExtension(access_pb2.recorded_read):
        return None
    return tuple(options.Extensions[access_pb2.recorded_read].ids)
