"""Texts for people: without characters that nobody sees or that reorder others. Pure."""

import re
from unicodedata import normalize

from command_server.kernel.decider import Rejected

_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control
    "\u00ad\u200b\u2028\u2029\u2060-\u2064\ufeff"  # invisible, but not the joiners of scripts and emoji
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f]"  # bidirectional
)


def check_text(field: str, text: str, *, is_required: bool = False, permitted: str = "") -> None:
    """Check a text.

    Args:
        field: the path of the field.
        text: its value.
        is_required: whether it must be more than space.
        permitted: hidden characters that it may have.

    Raises:
        Rejected: `TEXT_CHARACTER_FORBIDDEN` or `TEXT_EMPTY`.
    """
    for each in _HIDDEN.findall(text):
        if each not in permitted:
            raise Rejected("TEXT_CHARACTER_FORBIDDEN", field=field, character=f"U+{ord(each):04X}")
    if is_required and not text.strip():
        raise Rejected("TEXT_EMPTY", field=field)


def clean_text(field: str, text: str, *, is_required: bool = False, permitted: str = "") -> str:
    """Return a text in Unicode's normal form C, without space at its ends.

    The arguments and errors are those of `check_text`.
    """
    check_text(field, text, is_required=is_required, permitted=permitted)
    return normalize("NFC", text).strip()
