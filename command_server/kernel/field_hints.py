"""The annotations of a command's fields, taken apart."""

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

FIELD_INVALID = "FIELD_INVALID"
"""The reason of a rule that names no other. Details: the path of the field, and what it must be."""


@dataclass(frozen=True, slots=True)
class FieldRule:
    """A rule of one field."""

    accepts: Callable[[Any], Any]
    """Returns something true for a valid value."""
    text: str
    """What the value must be, for people."""
    reason: str = FIELD_INVALID


HAS_ZONE = FieldRule(lambda value: value.tzinfo is not None, "must have a time zone")


def split_rules(hint: Any) -> tuple[Any, list[FieldRule]]:
    """Return a field's type without its annotations, and the rules among them."""
    if get_origin(hint) is not Annotated:
        return hint, []
    hint, *metadata = get_args(hint)
    return hint, [rule for rule in metadata if isinstance(rule, FieldRule)]


def find_required(hint: Any) -> Any:
    """Return the type of an optional field's values; None if the field is not optional."""
    if get_origin(hint) not in (Union, types.UnionType):
        return None
    (required,) = (part for part in get_args(hint) if part is not type(None))
    return required
