"""Differences between two values, by field. Codes, ids and times are shown, unless they are personal."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from contracts.personal_fields import MASK, is_named_personal, list_personal_names, may_show_text

MAX_VALUE_LENGTH = 60
"""Characters of a value that is shown."""
MAX_FIELDS = 20
"""Differing fields of one state or message that are counted."""
ABSENT = object()


class FieldDifference(NamedTuple):
    """A field with its path, `[*]` for any element of a list, and what differs in it."""

    path: str
    text: str


def diff_json(
    stored: str, folded: str, personal_names: frozenset[str] = frozenset()
) -> list[FieldDifference]:
    """Return the differences between two JSON texts; none if they have the same values.

    Args:
        stored: one of them.
        folded: the other one.
        personal_names: of the fields whose values are not shown.
    """
    try:
        if _normalise(stored) == _normalise(folded):  # a tenth of the time of what follows
            return []
        before = json.loads(stored)
    except ValueError:
        return [FieldDifference("state", "what is stored is not JSON")]
    return _limit(_Differences(personal_names).find("", "state", before, json.loads(folded)))


def diff_messages(kind: type[Message], stored: bytes, folded: bytes) -> list[FieldDifference]:
    """Return the differences between two serialised messages of one type.

    Messages with the same fields in another encoding do not differ.
    """
    try:
        before, after = kind.FromString(stored), kind.FromString(folded)
        if before.SerializeToString(deterministic=True) == after.SerializeToString(deterministic=True):
            return []
        differences = _Differences(list_personal_names([kind.DESCRIPTOR]))
        found = _limit(differences.find("", "view", _to_values(before), _to_values(after)))
    except Exception as error:  # what is stored may be anything
        return [FieldDifference("message", f"cannot be compared: {type(error).__name__}")]
    return found or [FieldDifference("unknown_fields", "fields that the installed code does not know")]


def _normalise(text: str) -> bytes:
    """Return JSON with sorted keys and without spaces."""
    return msgspec.json.encode(msgspec.json.decode(text), order="sorted")


def _to_values(message: Message) -> Any:
    return MessageToDict(message, preserving_proto_field_name=True)


def _limit(differences: Iterator[FieldDifference]) -> list[FieldDifference]:
    return [each for each, _ in zip(differences, range(MAX_FIELDS), strict=False)]


class _Differences:
    """Finds differing fields.

    Args:
        personal_names: of the fields whose values are not shown.
    """

    def __init__(self, personal_names: frozenset[str]) -> None:
        self._personal_names = personal_names

    def find(
        self, path: str, name: str, before: Any, after: Any, *, is_personal: bool = False
    ) -> Iterator[FieldDifference]:
        is_personal = is_personal or is_named_personal(name, self._personal_names)
        if isinstance(before, dict) and isinstance(after, dict):
            for key in {**before, **after}:
                inner = f"{path}.{key}" if path else str(key)
                values = before.get(key, ABSENT), after.get(key, ABSENT)
                yield from self.find(inner, str(key), *values, is_personal=is_personal)
        elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
            for left, right in zip(before, after, strict=True):
                yield from self.find(f"{path}[*]", name, left, right, is_personal=is_personal)
        elif before != after or type(before) is not type(after):
            shown = (
                MASK if is_personal and value is not ABSENT else _show(name, value)
                for value in (before, after)
            )
            yield FieldDifference(path or name, " -> ".join(shown))


def _show(name: str, value: Any) -> str:
    if value is ABSENT:
        return "absent"
    if isinstance(value, list):
        return f"{len(value)} elements"
    if isinstance(value, dict):
        return f"{len(value)} fields"
    text = value if isinstance(value, str) else json.dumps(value)
    if isinstance(value, str) and not may_show_text(name, value):
        return f"text of {len(value)} characters"
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}…"
