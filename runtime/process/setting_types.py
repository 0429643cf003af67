"""The types of settings: texts that are checked when they are read, so that a malformed one names itself.

No message quotes a URL, which may hold a password.
"""

import re
from collections.abc import Collection, Mapping
from typing import Annotated
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import AfterValidator, Field

from runtime.process.setting_checks import MAX_PORT, check_address, check_text

MAX_SECONDS = 86_400.0

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_FILE = re.compile(r".+")
_NUMBER = re.compile(r"[0-9]{1,6}")
DATABASE_OPTIONS: Mapping[str, re.Pattern[str]] = {
    "sslmode": re.compile("|".join(SSL_MODES)),
    "sslrootcert": _FILE,
    "sslcert": _FILE,
    "sslkey": _FILE,
    "host": _FILE,
    "application_name": _FILE,
    "passfile": _FILE,
}
"""The options of a database URL, with libpq's names."""
NATS_TLS_OPTIONS: Mapping[str, re.Pattern[str]] = {"ca": _FILE, "cert": _FILE, "key": _FILE}
NATS_OPTIONS = {**NATS_TLS_OPTIONS, "nkey": _FILE}
"""The options of a NATS URL; those of TLS have the names of the `nats` command line."""
REDIS_OPTIONS: Mapping[str, re.Pattern[str]] = {
    "db": _NUMBER,
    "password_file": _FILE,
    "ssl_cert_reqs": re.compile("none|optional|required"),
    "ssl_check_hostname": re.compile("true|false", re.IGNORECASE),
    "ssl_ca_certs": _FILE,
    "ssl_ca_path": _FILE,
    "ssl_certfile": _FILE,
    "ssl_keyfile": _FILE,
    "ssl_password": _FILE,
}
"""The options of a Redis URL: redis-py's, and the file of the password."""


def _check_optional_text(text: str) -> str:
    return text and check_text(text)


def _check_optional_address(text: str) -> str:
    return text and check_address(text)


def split_targets(text: str) -> list[tuple[str, str]]:
    """Return the pairs of context and address in `context=host:port,…`."""
    parts = (part.strip().partition("=") for part in text.split(",") if part.strip())
    return [(context.strip(), address) for context, _, address in parts]


def _check_targets(text: str) -> str:
    names = []
    for name, address in split_targets(text):
        try:
            names.append(check_text(name))
            check_address(address)
        except ValueError as error:
            raise ValueError(f"an entry is not context=host:port: its address {error}") from error
    if len(set(names)) < len(names):
        raise ValueError("names a context twice")
    return text


def _split_url(text: str, schemes: Collection[str]) -> SplitResult:
    """Return the parts of a URL with a host.

    Raises:
        ValueError: it is none, or has another scheme or an invalid port.
    """
    check_text(text)
    advice = "percent-encode special characters in its user and password"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"has no valid host and port; {advice}") from error
    if parts.scheme not in schemes or "://" not in text:
        raise ValueError(f"is not a URL with the scheme {' or '.join(schemes)}")
    if port == 0:
        raise ValueError(f"has a port that is not from 1 to {MAX_PORT}")
    if " " in parts.netloc or parts.fragment:
        raise ValueError(f"has a blank or a #; {advice}")
    return parts


def _check_options(parts: SplitResult, patterns: Mapping[str, re.Pattern[str]]) -> dict[str, str]:
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise ValueError("has options that are not name=value, joined by &") from error
    options = dict(pairs)
    for name, value in pairs:
        if name not in patterns:
            raise ValueError(f"has the unknown option {name} (known: {', '.join(patterns)})")
        if not patterns[name].fullmatch(value):
            raise ValueError(f"has an invalid value of the option {name}")
    if len(options) < len(pairs):
        raise ValueError("has an option twice")
    return options


def _check_database_url(text: str) -> str:
    parts = _split_url(text, ("postgresql", "postgres"))
    options = _check_options(parts, DATABASE_OPTIONS)
    if not parts.hostname and "host" not in options:
        raise ValueError("names no host")
    return text


def _check_nats_url(text: str) -> str:
    for part in check_text(text).split(","):
        parts = _split_url(part.strip(), ("nats", "tls", "ws", "wss"))
        options = _check_options(parts, NATS_OPTIONS)
        if options.keys() & NATS_TLS_OPTIONS.keys() and parts.scheme not in ("tls", "wss"):
            raise ValueError("has options of TLS, and its scheme is neither tls nor wss")
        if not parts.hostname:
            raise ValueError("names no host")
    return text


def _check_redis_url(text: str) -> str:
    parts = _split_url(text, ("redis", "rediss"))
    _check_options(parts, REDIS_OPTIONS)
    if not parts.hostname:
        raise ValueError("names no host")
    if not _NUMBER.fullmatch(parts.path.removeprefix("/") or "0"):
        raise ValueError("names a database that is not a number")
    return text


def _check_key_source(text: str) -> str:
    if text.startswith(("http://", "https://")) and not _split_url(text, ("http", "https")).hostname:
        raise ValueError("names no host")
    return check_text(text)


def _check_token_endpoint(text: str) -> str:
    if text and not _split_url(text, ("http", "https")).hostname:
        raise ValueError("names no host")
    return text


Text = Annotated[str, AfterValidator(check_text)]
"""A name or the path of a file."""
OptionalText = Annotated[str, AfterValidator(_check_optional_text)]
Address = Annotated[str, AfterValidator(check_address)]
OptionalAddress = Annotated[str, AfterValidator(_check_optional_address)]
Targets = Annotated[str, AfterValidator(_check_targets)]
DatabaseUrl = Annotated[str, AfterValidator(_check_database_url)]
NatsUrl = Annotated[str, AfterValidator(_check_nats_url)]
RedisUrl = Annotated[str, AfterValidator(_check_redis_url)]
KeySource = Annotated[str, AfterValidator(_check_key_source)]
"""A file or an http(s) URL."""
TokenEndpoint = Annotated[str, AfterValidator(_check_token_endpoint)]
"""An http(s) URL, or nothing."""
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)]
