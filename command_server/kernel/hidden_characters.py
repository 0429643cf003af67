"""Characters that nobody sees, or that reorder others, and so have no place in texts for people. Pure."""

import re

_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control
    "\u00ad\u200b\u2028\u2029\u2060-\u2064\ufeff"  # invisible, but not the joiners of scripts and emoji
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f]"  # bidirectional
)


def find_hidden_character(text: str, permitted: str = "") -> str:
    """Return the first hidden character of a text that is not permitted, as `U+200B`; empty if none."""
    return next((f"U+{ord(each):04X}" for each in _HIDDEN.findall(text) if each not in permitted), "")
