"""Compares the field rules of a context's commands with the rules of its protos.

How it works. For each method `request_variants` builds a valid request and variants of it. protovalidate says
which of them violate the proto. The decider must reject exactly those by a field rule, or by another rule
that the valid request does not violate. So nothing here has to know the rules themselves.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from datetime import datetime
from typing import Any, get_args, get_type_hints
from uuid import UUID

from google.protobuf.message import Message

from command_server.kernel.context import CommandType, Context, command_types
from command_server.kernel.decider import Rejected, RejectionKind
from contracts.streams import stream_type
from diptych_testing.request_variants import TYPICAL, build_valid, name_field, vary, violations_of
from diptych_testing.scenario import NOW

GENERATED = str(UUID(int=5))
"""The id in place of an empty one, which the server generates."""


def check_field_rules(context: Context, examples: Mapping[str, Any] = TYPICAL) -> set[tuple[str, str]]:
    """Assert that the deciders of a context refuse what its protos refuse.

    Args:
        context: the context.
        examples: valid values by field name, for strings with patterns that no text here matches.

    Returns:
        The violated fields: the full name of the method, and the path of the field in its request.
    """
    violated: set[tuple[str, str]] = set()
    failures: list[str] = []
    methods = [method for service in context.services for method in service.methods]
    types = command_types(context)
    for method in methods:
        valid = build_valid(method.input_type, examples)
        probe = _Probe(types[method.full_name], valid)
        for path, variant in vary(valid, lambda message: not violations_of(message)):
            violations = violations_of(variant)
            violated |= {(method.full_name, name_field(violation)) for violation in violations}
            if failure := probe.compare(variant, is_valid=not violations and not _has_nul(variant)):
                rules = ", ".join(sorted({each.proto.rule_id for each in violations})) or "valid"
                failures.append(f"{method.full_name}: {path}: {failure} ({rules})")
        for path, failure in probe.compare_missing_values():
            violated.add((method.full_name, path))
            if failure:
                failures.append(f"{method.full_name}: {path} is None: {failure}")
    assert not failures, "\n".join(dict.fromkeys(failures))
    return violated


class _Probe:
    """The decisions about variants of one command, on streams without events."""

    def __init__(self, kind: CommandType, valid: Message) -> None:
        self._kind = kind
        self._initial = {each.stream_type: each.initial for each in kind.decider.aggregates}
        self._command = self._decode(valid)
        self._usual_reason = self._find_reason(self._command)

    def compare(self, variant: Message, *, is_valid: bool) -> str:
        """Return how the decision about a request differs from its proto; empty if it does not."""
        if is_valid:
            return self._check_valid(self._decode(variant))
        return self._check_invalid(self._kind.decode(variant, "caller"))

    def compare_missing_values(self) -> Iterator[tuple[str, str]]:
        """Yield the path of each field that needs a message, and how the decision without it differs."""
        for path, command in _remove_values(self._command):
            yield path, self._check_invalid(command, self._command)

    def _decode(self, request: Any) -> Any:
        if not getattr(request, self._kind.decider.key):
            setattr(request, self._kind.decider.key, GENERATED)
        return self._kind.decode(request, "caller")

    def _check_valid(self, command: Any) -> str:
        rejection = self._decide(command)
        names_field = isinstance(rejection, Rejected) and {"field", "rule"} <= rejection.details.keys()
        return f"refused: {rejection.details}" if isinstance(rejection, Rejected) and names_field else ""

    def _check_invalid(self, command: Any, streams_of: Any = None) -> str:
        rejection = self._decide(command, streams_of)
        if not isinstance(rejection, Rejected):
            return f"raises {rejection!r}" if rejection else "accepted"
        is_rule = rejection.kind is RejectionKind.RULE and rejection.reason != self._usual_reason
        return "" if is_rule else f"passed to {rejection.reason}"

    def _find_reason(self, command: Any) -> str:
        rejection = self._decide(command)
        assert rejection is None or isinstance(rejection, Rejected), repr(rejection)
        return "" if rejection is None else rejection.reason

    def _decide(self, command: Any, streams_of: Any = None) -> Exception | None:
        decider = self._kind.decider
        try:
            names = decider.streams(streams_of or command)
            states = {name: self._initial[stream_type(name)] for name in names}
            decider.decide(command, states, NOW)
        except Exception as error:
            return error
        return None


def _has_nul(message: Message) -> bool:
    return b"\0" in message.SerializeToString() and "\\000" in str(message)


def _remove_values(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the path of each field that needs a message, and a copy of a dataclass with None there."""
    hints = get_type_hints(type(value))
    for field in fields(value):
        item = getattr(value, field.name)
        nested = item[0] if isinstance(item, tuple) else item
        if type(None) in get_args(hints[field.name]) or not (
            is_dataclass(nested) or isinstance(nested, datetime)
        ):
            continue
        if not isinstance(item, tuple):
            yield field.name, replace(value, **{field.name: None})
        if is_dataclass(nested):
            for path, changed in _remove_values(nested):
                rebuilt = (changed,) if isinstance(item, tuple) else changed
                yield f"{field.name}.{path}", replace(value, **{field.name: rebuilt})
