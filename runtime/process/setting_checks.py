"""Checks of single settings, for all who read them: the processes, and the command line without pydantic."""

MAX_PORT = 65_535


def check_text(text: str) -> str:
    """Return a text.

    Raises:
        ValueError: it is empty, or not printable.
    """
    if not text:
        raise ValueError("is empty")
    if not text.isprintable():
        raise ValueError("holds a character that is not printable")
    return text


def check_address(text: str) -> str:
    """Return an address, `host:port`.

    Raises:
        ValueError: it is none.
    """
    host, _, port = check_text(text).rpartition(":")
    is_host = host and " " not in host and (":" not in host or (host[0], host[-1]) == ("[", "]"))
    if not is_host or not (port.isascii() and port.isdecimal() and int(port) <= MAX_PORT):
        raise ValueError(f"is not host:port with a port from 0 to {MAX_PORT}")
    return text
