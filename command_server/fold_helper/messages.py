"""Messages between a command server and its fold helper: one JSON object a line."""

import msgspec


class Start(msgspec.Struct):
    """The first message to the helper."""

    database_url: str
    session: dict[str, str]
    """PostgreSQL parameters of its session."""
    modules: list[str]
    """The modules with the contexts."""
    keys: str = ""
    """The path of the key ring; empty without one."""


class FoldRequest(msgspec.Struct):
    """Fold this stream, which is at this version or a later one."""

    stream: str
    version: int


class FoldReport(msgspec.Struct):
    """The fold of a stream has ended, and its state is kept; without a stream: the helper is at work."""

    stream: str = ""
    events: int = 0
    """The number of folded events."""
    error: str = ""
    """The reason if the fold failed; the state before it is kept."""


read_start = msgspec.json.Decoder(Start).decode
read_request = msgspec.json.Decoder(FoldRequest).decode
read_report = msgspec.json.Decoder(FoldReport).decode
_encode = msgspec.json.Encoder().encode


def write_line(message: msgspec.Struct) -> bytes:
    return _encode(message) + b"\n"
