"""Reads `OTEL_*` variables. The SDK ignores a value that it does not know; here it is an error that names it.

An empty value counts as unset, and names of values may be in upper case, both as OpenTelemetry specifies.
"""

import os
import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from runtime.process.start_error import InvalidSetting

MAX_NUMBER = 2**31 - 1

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name: a token of RFC 9110."""


def read_text(*names: str) -> tuple[str, str]:
    """Return the first variable that is set, and its value; the last one and "" if none is."""
    for name in names:
        if value := os.environ.get(name, "").strip():
            return name, value
    return names[-1], ""


def read_choice(*names: str, choices: Sequence[str], default: str) -> str:
    """Return one of the choices.

    Args:
        names: the variables, of which the first one that is set counts.
        choices: the supported values.
        default: the value if none is set.
    """
    name, value = read_text(*names)
    if value and value.lower() not in choices:
        raise _fail(name, value, f"not supported; choose {join_choices(choices)}")
    return value.lower() or default


def read_choices(name: str, *, choices: Sequence[str], default: str) -> list[str]:
    """Return the choices in a list separated by commas, without repetitions; none for `none`."""
    value = os.environ.get(name, "").strip() or default
    chosen = list(dict.fromkeys(part.strip().lower() for part in value.split(",")))
    for part in chosen:
        if part not in (*choices, "none"):
            raise _fail(name, value, f"not supported; choose {join_choices((*choices, 'none'))}")
    if "none" in chosen and len(chosen) > 1:
        raise _fail(name, value, "none excludes all others")
    return [] if chosen == ["none"] else chosen


def _fail(name: str, value: str, message: str) -> InvalidSetting:
    return InvalidSetting(f"{name}={value[:100]}: {message}")


def join_choices(choices: Sequence[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"


def read_boolean(*names: str, default: bool = False) -> bool:
    value = read_choice(*names, choices=("true", "false"), default="")
    return value == "true" if value else default


def read_number(*names: str, default: int, minimum: int = 1) -> int:
    """Return a whole number, for instance of milliseconds."""
    name, value = read_text(*names)
    if not value:
        return default
    is_number = value.isascii() and value.isdecimal() and minimum <= int(value[:11]) <= MAX_NUMBER
    if not is_number:
        raise _fail(name, value, f"not a whole number from {minimum} to {MAX_NUMBER}")
    return int(value)


def read_ratio(name: str, default: float = 1.0) -> float:
    """Return a number from 0 to 1."""
    _, value = read_text(name)
    if not value:
        return default
    try:
        ratio = float(value)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise _fail(name, value, "not a number from 0 to 1")
    return ratio


def read_pairs(*names: str, headers: bool = False) -> Mapping[str, str]:
    """Return the pairs of `name=value,…` with percent-decoded values. Errors do not quote values.

    Args:
        names: the variables, of which the first one that is set counts.
        headers: whether the pairs must be headers of a call.
    """
    variable, text = read_text(*names)
    pairs: dict[str, str] = {}
    for number, part in enumerate(filter(None, map(str.strip, text.split(","))), start=1):
        name, separator, value = part.partition("=")
        name, value = unquote(name.strip()), unquote(value.strip())
        if not (separator and name and (name + value).isprintable()):
            raise InvalidSetting(f"{variable}: entry {number} is not name=value")
        if headers and not (_HEADER.fullmatch(name) and value.isascii()):
            raise InvalidSetting(f"{variable}: entry {number} is no header: its name or value is not allowed")
        pairs[name] = value
    return pairs
