"""Field rules compiled to one expression per class, which decides whether a command is valid.

Such an expression, as `runtime.codec` builds them for messages, costs half of a function per field. It only
decides; `field_rules.py` finds the field and the rule of a command that is not valid.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from command_server.kernel.field_hints import HAS_ZONE, find_required, split_rules


@cache
def build_predicate(cls: type) -> Callable[[Any], bool]:
    """Return a function that returns whether the fields of a dataclass obey their rules."""
    hints, scope = get_type_hints(cls, include_extras=True), dict[str, Any]()
    terms = [_write_term(hints[field.name], f"value.{field.name}", scope) for field in fields(cls)]
    return _compile(terms, scope)


def _compile(terms: Sequence[str], scope: dict[str, Any]) -> Callable[[Any], bool]:
    source = "lambda value: " + (" and ".join(terms) or "True")
    predicate: Callable[[Any], bool] = eval(source, scope)  # noqa: S307 - made of the names of fields
    return predicate


def _write_term(hint: Any, value: str, scope: dict[str, Any]) -> str:
    """Return an expression that is true if a value is valid; the functions that it calls are in its scope."""
    hint, rules = split_rules(hint)
    name = _bind(None, scope)
    if (required := find_required(hint)) is not None:
        return f"(({name} := {value}) is None or {_write_term(required, name, scope)})"
    terms = [f"({name} := {value}) is not None"]
    if hint is str:
        terms.append(f"{chr(0)!r} not in {name}")
    if hint is datetime:
        rules.append(HAS_ZONE)
    terms += [f"{_bind(rule.accepts, scope)}({name})" for rule in rules]
    if get_origin(hint) is tuple:
        item_scope = dict[str, Any]()
        item = _compile([_write_term(get_args(hint)[0], "value", item_scope)], item_scope)
        terms.append(f"all(map({_bind(item, scope)}, {name}))")
    elif is_dataclass(hint) and isinstance(hint, type) and not rules:
        terms.append(f"{_bind(build_predicate(hint), scope)}({name})")
    return f"({' and '.join(terms)})"


def _bind(function: Any, scope: dict[str, Any]) -> str:
    """Return a new name for a function in the scope of an expression."""
    name = f"_{len(scope)}"
    scope[name] = function
    return name
