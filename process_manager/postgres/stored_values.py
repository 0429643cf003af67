"""The values that a row can hold. Pure.

They are checked before a reaction takes effect, because one bad value would fail the whole transaction.
"""

import json
import re
from typing import Any

import msgspec

from process_manager.saga import Reaction, Saga

NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""U+0000 in JSON, which PostgreSQL cannot hold; not a backslash in front of these letters."""
MAX_NAME_LENGTH = 500
"""Characters of a status and of the names of steps and timers, which are in indexes."""
MAX_ERROR_LENGTH = 2000
"""Characters of an error that a row keeps."""


def to_json(state: Any) -> str:
    """Return a saga's state as JSON.

    Raises:
        Exception: it has a value that JSON or PostgreSQL cannot hold.
    """
    values = msgspec.to_builtins(state)
    text = json.dumps(values, allow_nan=False, ensure_ascii=False)
    text.encode()  # fails on half of a surrogate pair
    if "\\u0000" in text and NUL.search(text):  # the expression alone takes as long as the encoding
        raise ValueError("the state holds the character U+0000")
    return text


def to_text(text: str) -> str:
    """Return an error as PostgreSQL can store it, of limited length."""
    return (
        text[:MAX_ERROR_LENGTH].replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
    )


def check_storable(saga: Saga[Any], reaction: Reaction[Any]) -> None:
    """Check a reaction here, where an exception is this instance's own.

    Raises:
        Exception: a row cannot hold a part of it, or its status cannot be described.
    """
    to_json(reaction.state)
    status = saga.describe_status(reaction.state)
    names = [send.step for send in reaction.send] + [timer.name for timer in reaction.timers]
    for text in (status.state, status.waiting_for, status.blocked_reason, *names):
        text.encode()  # fails on half of a surrogate pair
        if "\0" in text:
            raise ValueError(f"{text!r} holds the character U+0000")
    for name in (status.state, *names):
        if len(name) > MAX_NAME_LENGTH:
            raise ValueError(f"{name[:50]!r}… has more than {MAX_NAME_LENGTH} characters")
    for timer in reaction.timers:
        if timer.at is not None and timer.at.tzinfo is None:
            raise ValueError(f"timer {timer.name} has a time without a time zone")
