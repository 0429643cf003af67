"""The texts of banking whose codes are ids: payers as they are, names in their one form."""

from contracts.names import normalize_name


def normalize_text(text: str) -> str:
    """Return the one form of a text.

    Raises:
        ValueError: a name has none.
    """
    kind, _, name = text.partition(" ")
    return f"{kind} {normalize_name(name)}" if kind == "name" else text
