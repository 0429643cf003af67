"""Checks that tell in a few microseconds that a message certainly keeps all rules of its proto.

protovalidate takes three times as long. A check is a Python expression, built once from the same rules, and
covers those that are common. For every other message, and for one that fails, protovalidate is asked, whose
word counts. So no error text comes from here.

tests/unit/runtime/test_rule_checks.py compares the checks with protovalidate, with variants of every request.
"""

import re
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from runtime.grpc.cel_source import NotCovered, compile_pattern, translate
from runtime.grpc.proto_rules import read_rules

Check = Callable[[Any], bool]
"""Returns whether a message certainly keeps its rules."""

_UUID = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").fullmatch
_INTEGERS = {"int32", "int64", "uint32", "uint64"}
_SIGNS = {"gte": ">=", "gt": ">", "lte": "<=", "lt": "<"}


def build_check(message: Any) -> Check | None:
    """Return the check of a type, given its descriptor; None if it has a rule that is not covered."""
    builder = _Builder()
    try:
        return builder.build(message)
    except NotCovered:
        return None


class _Builder:
    """Writes expressions about a value `v`; an empty one is true."""

    def __init__(self) -> None:
        self._names: dict[str, Any] = {"uuid": _UUID}
        """What the expressions name: patterns, sets, and the checks of nested messages."""
        self._around: list[str] = []
        """The types around the current one: a type that contains itself is not covered."""

    def build(self, message: Descriptor) -> Check:
        expression = self._write_message(message) or "True"
        check: Check = eval(f"lambda v: bool({expression})", self._names)  # noqa: S307 - names and numbers
        return check

    def _name(self, value: Any) -> str:
        name = f"n{len(self._names)}"
        self._names[name] = value
        return name

    def _name_pattern(self, pattern: str) -> str:
        return self._name(compile_pattern(pattern))

    def _write_message(self, message: Descriptor) -> str:
        if message.full_name in self._around:
            raise NotCovered(message.full_name)
        for oneof in message.oneofs:
            _expect_only(read_rules(oneof, "oneof"), set())
        self._around.append(message.full_name)
        rules = read_rules(message, "message")
        _expect_only(rules, {"cel"})
        parts = self._write_cel(rules) + [self._write_field(field) for field in message.fields]
        self._around.pop()
        return _join(parts)

    def _write_field(self, field: FieldDescriptor) -> str:
        rules, value = read_rules(field, "field"), f"v.{field.name}"
        if field.is_repeated:
            return _join([value if rules.required else "", self._write_list(field, rules, value)])
        check = self._write_value(field, rules, {"required"})
        written = f"{self._name_check(check)}({value})" if check else ""
        if (
            field.message_type is None and field.containing_oneof is None
        ):  # it has its default, if nothing else
            return _join([value if rules.required else "", written])
        has = f"v.HasField({field.name!r})"
        if rules.required:
            return _join([has, written])
        return f"(not {has} or {written})" if written else ""

    def _name_check(self, expression: str) -> str:
        """Return the name of a check; of one call alone that is the called function."""
        if called := re.fullmatch(r"(\w+)\(v\)", expression):
            return called[1]
        return self._name(eval(f"lambda v: {expression}", self._names))  # noqa: S307

    def _write_list(self, field: FieldDescriptor, rules: Any, value: str) -> str:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            raise NotCovered(field.full_name)
        _expect_only(rules, {"required", "repeated"})
        _expect_only(rules.repeated, {"min_items", "max_items", "unique", "items"})
        parts = [f"len({value}) >= {rules.repeated.min_items}" if rules.repeated.min_items else ""]
        if rules.repeated.HasField("max_items"):
            parts.append(f"len({value}) <= {rules.repeated.max_items}")
        if rules.repeated.unique:
            parts.append(f"len(set({value})) == len({value})")
        if check := self._write_value(field, rules.repeated.items, set()):
            parts.append(f"all([{self._name_check(check)}(each) for each in {value}])")
        return _join(parts)

    def _write_value(self, field: FieldDescriptor, rules: Any, ignored: set[str]) -> str:
        parts: list[str] = []
        for rule in (rule.name for rule, _ in rules.ListFields() if rule.name not in ignored):
            if rule == "string":
                parts += self._write_string(rules.string)
            elif rule in _INTEGERS:
                parts += _write_integer(getattr(rules, rule))
            elif rule == "enum":
                parts += self._write_enum(field, rules.enum)
            elif rule == "cel":
                parts += self._write_cel(rules)
            else:
                raise NotCovered(rule)
        if field.message_type is not None and field.message_type.file.package != "google.protobuf":
            parts.append(self._write_message(field.message_type))
        return _join(parts)

    def _write_cel(self, rules: Any) -> list[str]:
        return [translate(rule.expression, self._name_pattern) for rule in rules.cel]

    def _write_string(self, rules: Any) -> list[str]:
        _expect_only(rules, {"uuid", "pattern", "min_len", "max_len"})
        parts = ["uuid(v)" if rules.uuid else ""]
        if rules.pattern:
            parts.append(f"{self._name_pattern(rules.pattern)}(v)")
        if rules.min_len:
            parts.append(f"len(v) >= {rules.min_len}")
        if rules.HasField("max_len"):
            parts.append(f"len(v) <= {rules.max_len}")
        return parts

    def _write_enum(self, field: FieldDescriptor, rules: Any) -> list[str]:
        _expect_only(rules, {"defined_only", "not_in"})
        if not rules.defined_only or field.enum_type is None:
            raise NotCovered(field.full_name)
        return [f"v in {self._name(frozenset(field.enum_type.values_by_number) - set(rules.not_in))}"]


def _write_integer(rules: Any) -> list[str]:
    _expect_only(rules, set(_SIGNS))
    bounds = {rule.name: bound for rule, bound in rules.ListFields()}
    lows = [bounds[name] for name in ("gt", "gte") if name in bounds]
    highs = [bounds[name] for name in ("lt", "lte") if name in bounds]
    if lows and highs and lows[0] >= highs[0]:  # everything outside of a range
        raise NotCovered("range")
    return [f"v {_SIGNS[name]} {bound}" for name, bound in bounds.items()]


def _expect_only(rules: Any, names: set[str]) -> None:
    if unknown := {rule.name for rule, _ in rules.ListFields()} - names:
        raise NotCovered(", ".join(unknown))


def _join(parts: list[str]) -> str:
    return " and ".join(filter(None, parts))
