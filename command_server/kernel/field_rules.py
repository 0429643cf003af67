"""Field rules: the values that a command may carry, declared in the annotations of its fields.

How it works. A rule is metadata of a field's type, for instance `title: Annotated[str, length(1, 200)]`.
`check_fields`, the first line of every `decide`, compares a command with the rules of its class, of the
dataclasses nested in it and of the items of tuples. A rule of a whole dataclass, such as an amount of money,
replaces those of its fields. Besides, every field needs a value unless its type allows None, and no string
may contain U+0000, which PostgreSQL cannot store, and a time needs its zone.

Nearly all commands are valid, so a single expression, compiled once per class, decides that first
(`field_predicates.py`). Only for the others is it worth finding the field and the rule.

The protos have the same rules for clients. Events are facts and are not checked, although they share classes
with commands. `diptych_testing.field_rules` compares the rules of a context with its protos.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from command_server.kernel.decider import Rejected
from command_server.kernel.field_hints import (
    FIELD_INVALID,
    HAS_ZONE,
    FieldRule,
    find_required,
    split_rules,
)
from command_server.kernel.field_predicates import build_predicate

MAX_INTEGER = 2**63 - 1
"""The largest int64 of Protobuf."""

Check = Callable[[Any], None]
"""Raises _Violation if a value violates a rule."""


def matching(pattern: str, text: str = "") -> FieldRule:
    """The whole string matches a regular expression."""
    return FieldRule(re.compile(pattern).fullmatch, text or f"must match {pattern}")


def length(least: int, most: int) -> FieldRule:
    """The string has this number of characters."""
    return FieldRule(lambda value: least <= len(value) <= most, f"must have {least} to {most} characters")


def between(least: int, most: int = MAX_INTEGER) -> FieldRule:
    """The number is in this range, both ends included."""
    return FieldRule(lambda value: least <= value <= most, f"must be from {least} to {most}")


def at_least(items: int, reason: str = FIELD_INVALID) -> FieldRule:
    """The tuple has no fewer items."""
    return FieldRule(lambda value: len(value) >= items, f"must have at least {items} items", reason)


def at_most(items: int, reason: str = FIELD_INVALID) -> FieldRule:
    """The tuple has no more items."""
    return FieldRule(lambda value: len(value) <= items, f"must have at most {items} items", reason)


Id = Annotated[str, matching("[A-Za-z0-9_-]{1,64}")]
"""The id of an aggregate or of a part of it."""
OptionalId = Annotated[str, matching("[A-Za-z0-9_-]{0,64}")]


def check_fields(command: Any) -> None:
    """Check the fields of a command.

    Raises:
        Rejected: a field violates a rule of its annotation.
    """
    kind: type = type(command)
    if build_predicate(kind)(command):
        return
    try:
        _build_check(kind)(command)
    except _Violation as violation:
        rule = violation.rule
        raise Rejected(rule.reason, field=violation.path, rule=rule.text) from None


class _Violation(Exception):
    def __init__(self, rule: FieldRule) -> None:
        super().__init__(rule.text)
        self.rule = rule
        self.path = ""

    def add_parent(self, name: str) -> None:
        """Put a field's name, or an index in brackets, before the path."""
        separator = "." if self.path and not self.path.startswith("[") else ""
        self.path = f"{name}{separator}{self.path}"


_REQUIRED = FieldRule(lambda value: value is not None, "must be set")
_NO_NUL = FieldRule(lambda value: "\0" not in value, "must not contain U+0000")


@cache
def _build_check(cls: type) -> Check:
    """Return a function that checks the fields of a dataclass."""
    hints = get_type_hints(cls, include_extras=True)
    checks = [(field.name, _build_value_check(hints[field.name])) for field in fields(cls)]

    def check(value: Any) -> None:
        for name, check_value in checks:
            try:
                check_value(getattr(value, name))
            except _Violation as violation:
                violation.add_parent(name)
                raise

    return check


def _build_value_check(hint: Any) -> Check:
    """Return a function that checks a value of an annotated type."""
    hint, rules = split_rules(hint)
    if (required := find_required(hint)) is not None:
        return _build_optional_check(_build_value_check(required))
    if hint is str:
        return _build_text_check(rules)
    if hint is datetime:
        rules.append(HAS_ZONE)
    nested = None
    if get_origin(hint) is tuple:
        nested = _build_items_check(_build_value_check(get_args(hint)[0]))
    elif is_dataclass(hint) and isinstance(hint, type) and not rules:
        nested = _build_check(hint)
    return _build_rules_check(rules, nested)


def _build_text_check(rules: Sequence[FieldRule]) -> Check:
    """Return a function that checks a string; these are the most numerous values."""
    pairs = [(rule.accepts, rule) for rule in rules]

    def check(value: Any) -> None:
        if value is None:
            raise _Violation(_REQUIRED)
        if "\0" in value:
            raise _Violation(_NO_NUL)
        for accepts, rule in pairs:
            if not accepts(value):
                raise _Violation(rule)

    return check


def _build_rules_check(rules: Sequence[FieldRule], nested: Check | None) -> Check:
    pairs = [(rule.accepts, rule) for rule in rules]

    def check(value: Any) -> None:
        if value is None:
            raise _Violation(_REQUIRED)
        for accepts, rule in pairs:
            if not accepts(value):
                raise _Violation(rule)
        if nested is not None:
            nested(value)

    return check


def _build_optional_check(check: Check) -> Check:
    def check_optional(value: Any) -> None:
        if value is not None:
            check(value)

    return check_optional


def _build_items_check(check: Check) -> Check:
    def check_items(items: Any) -> None:
        for index, item in enumerate(items):
            try:
                check(item)
            except _Violation as violation:
                violation.add_parent(f"[{index}]")
                raise

    return check_items
