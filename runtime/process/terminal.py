"""Text for a terminal: what callers or servers wrote neither moves the cursor nor forges a line.

And text from one, or from the environment, which may be no text.
"""

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape(text: str) -> str:
    """Return a text as one line; characters that are not printable become escapes, as in JSON."""
    return text if text.isprintable() else "".join(map(_escape_character, text))


def escape_lines(text: str) -> str:
    """Return lines of our own making, each escaped."""
    return text if text.isprintable() else "\n".join(map(escape, text.split("\n")))


def is_unicode(text: str) -> bool:
    """Return whether a text has no lone surrogates, as Python makes them of bytes that are not UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _escape_character(character: str) -> str:
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return _SHORT.get(character) or "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
