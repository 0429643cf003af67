"""Log lines for people, in colours. Pipes get colours too, because `make up` reads one."""

from collections.abc import Mapping
from typing import Any

from runtime.process.logs.lines import (
    MAX_LINE_LENGTH,
    TEXT_LENGTHS,
    build_fields_safely,
    hide_secrets,
    shorten,
    shorten_fields,
)

_COLOURS = {"debug": "\x1b[32m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}
_RESET, _BOLD, _DIM, _BLUE, _MAGENTA, _CYAN = (f"\x1b[{n}m" for n in (0, 1, 2, 34, 35, 36))
_MESSAGE_WIDTH = 28


def render_console(service: str, level: str, logger: str, message: str, fields: Mapping[str, Any]) -> bytes:
    """Return a coloured line, with a traceback below it; it never raises."""
    line = build_fields_safely(service, level, logger, message, fields)
    exception = str(line.pop("exception", ""))
    time, message = str(line.pop("timestamp"))[11:23], str(line.pop("message"))
    line.pop("service", None)
    level, logger = _make_printable(str(line.pop("level"))), _make_printable(str(line.pop("logger")))
    parts = [
        f"{_DIM}{time}{_RESET} [{_COLOURS.get(level, '')}{_BOLD}{level:9}{_RESET}] "
        f"{_BOLD}{_make_printable(message):{_MESSAGE_WIDTH}}{_RESET} [{_BLUE}{_BOLD}{logger}{_RESET}]"
    ]
    for name, value in shorten_fields(line, TEXT_LENGTHS[0]).items():
        parts.append(f"{_CYAN}{name}{_RESET}={_MAGENTA}{_make_printable(str(value))}{_RESET}")
    text = " ".join(parts)
    if exception:
        text = "\n".join(
            (text, *map(_make_printable, shorten(exception, MAX_LINE_LENGTH).rstrip().split("\n")))
        )
    return hide_secrets(text.encode("utf-8", "backslashreplace")) + b"\n"


def _make_printable(text: str) -> str:
    text = shorten(text, TEXT_LENGTHS[0])
    return text if text.isprintable() else repr(text)[1:-1]
