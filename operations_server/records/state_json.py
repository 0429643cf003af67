"""The state of an aggregate as a Struct has it, whose numbers are floats."""

import json
from typing import Any

MAX_EXACT = 2**53
"""Integers beyond it are not exact as floats; they are strings, as in JSON of Protobuf messages."""


def parse_state(text: str) -> dict[str, Any]:
    """Return a state from its JSON."""
    state = json.loads(text, parse_int=_parse_int)
    return state if isinstance(state, dict) else {"value": state}


def _parse_int(digits: str) -> int | str:
    return number if abs(number := int(digits)) <= MAX_EXACT else digits
