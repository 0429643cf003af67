"""Log lines as bytes: anything becomes one line of bounded length, without secrets, and nothing raises.

How it works. Almost every line takes the short way: a dict of its fields, encoded as JSON. A line that cannot
be encoded or is too long is encoded again from shortened texts of its fields. JSON escapes line ends and most
control characters; those that it leaves alone are escaped afterwards, because terminals obey them and some
readers take them for line ends.
"""

import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from runtime.telemetry import trace_context

MAX_LINE_LENGTH = 16_384
"""Bytes of a line, without its end."""
TEXT_LENGTHS = (4_096, 512, 64)
"""Characters to which the texts of a line that is too long are shortened, one length after the other."""
_MAX_FIELDS, _MAX_NAME_LENGTH = 50, 60
"""Fields of such a line, and characters of a field's name."""

_encode = msgspec.json.Encoder(enc_hook=repr).encode
_ACTIVE = re.compile(rb"\xc2[\x80-\x9f]|\xe2\x80[\x8b-\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]|\xef\xbb\xbf")
"""In UTF-8: the C1 controls, line and paragraph separators, and marks that are invisible or change the
direction of writing."""
_SECRETS = re.compile(
    rb"(?P<start>://|[Bb]earer |\b(?=eyJ))"
    rb"(?:(?<=://)[^\s/@\"\\]+(?=@)"  # credentials in a URL
    rb"|(?<=earer )[^\s\"\\]+"
    rb"|eyJ[\w-]+\.[\w-]+\.[\w-]*)"  # a JSON Web Token
)


def build_fields(
    service: str, level: str, logger: str, message: str, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a line's fields in their order of output. Fields of the caller override the standard ones."""
    line: dict[str, Any] = {
        "timestamp": datetime.now(UTC),
        "level": level,
        "logger": logger,
        "service": service,
        "message": message,
    }
    if (traceparent := trace_context.get_current()) is not None:
        line["trace_id"] = traceparent[3:35]
        if trace_context.is_sampled(traceparent):
            line["span_id"] = traceparent[36:52]
    line |= fields
    if exc_info := line.pop("exc_info", None):
        line["exception"] = format_traceback(exc_info)
    return line


def build_fields_safely(
    service: str, level: str, logger: str, message: str, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a line's fields, without the traceback of an error that cannot be formatted."""
    try:
        return build_fields(service, level, logger, message, fields)
    except Exception:
        rest = {name: value for name, value in fields.items() if name != "exc_info"}
        return build_fields(service, level, logger, message, rest)


def format_traceback(exc_info: Any) -> str:
    """Format an exception, an exc_info tuple or, for True, the exception being handled."""
    if isinstance(exc_info, tuple):
        error = exc_info[1]
    elif isinstance(exc_info, BaseException):
        error = exc_info
    else:
        error = sys.exception()
    return "".join(traceback.format_exception(error)) if error else ""


def render_json(service: str, level: str, logger: str, message: str, fields: Mapping[str, Any]) -> bytes:
    """Return a line of JSON; never raises."""
    # Only info lines are frequent, and their fields are ids; other lines can quote a URL or a header.
    public = level == "info"
    try:
        line = _encode_line(build_fields(service, level, logger, message, fields), public)
    except Exception:  # for instance a lone surrogate, or a dict that contains itself
        line = b""
    if not line:
        line = _encode_shortened(
            build_fields_safely(service, level, logger, message, fields), public
        ) or _encode_shortened(build_fields_safely(service, level, logger, message, {}), public)
    return line + b"\n"


def _encode_line(fields: Mapping[str, Any], public: bool) -> bytes:
    """Return a line, or nothing if it is too long."""
    line = _encode(fields)
    if len(line) > MAX_LINE_LENGTH:
        return b""
    if not public:
        line = hide_secrets(line)
    if not line.isascii():
        line = _ACTIVE.sub(_escape, line)
    return line if len(line) <= MAX_LINE_LENGTH else b""


def _encode_shortened(fields: Mapping[str, Any], public: bool) -> bytes:
    """Return a line whose texts are shortened as far as necessary; empty if they cannot be short enough."""
    for length in TEXT_LENGTHS:
        if line := _encode_line(shorten_fields(fields, length), public):
            return line
    return b""


def hide_secrets(line: bytes) -> bytes:
    """Return a line without credentials of URLs, bearer tokens and JSON Web Tokens."""
    return _SECRETS.sub(rb"\g<start>***", line)


def _escape(match: "re.Match[bytes]") -> bytes:
    return b"\\u%04x" % ord(match[0].decode())


def shorten_fields(line: Mapping[str, Any], length: int) -> dict[str, Any]:
    pairs = list(line.items())[:_MAX_FIELDS]
    return {shorten(str(name), _MAX_NAME_LENGTH): _shorten_value(value, length) for name, value in pairs}


def _shorten_value(value: Any, length: int) -> Any:
    if value is None or isinstance(value, bool | float | datetime):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    return shorten(value if isinstance(value, str) else _describe(value), length)


def _describe(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"


def shorten(text: str, length: int) -> str:
    """Return a text that can be encoded; of a longer one its beginning and its end."""
    if len(text) > length:
        half = length // 2
        text = f"{text[:half]} … {len(text) - 2 * half} characters … {text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode()
