"""Warns of stores on other machines whose connections are not encrypted."""

from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

from runtime.process import logs
from runtime.process.loopback import is_loopback
from runtime.process.settings import Settings

ENCRYPTING_MODES = {"require", "verify-ca", "verify-full"}
"""The values of `sslmode` with which PostgreSQL is not reached in the clear."""

log = logs.get_logger(__name__)


def warn_of_plaintext(settings: Settings) -> None:
    """Log each store that is reached in the clear at another machine, unless the settings permit it."""
    if settings.insecure:
        return
    for store, host in find_plaintext(settings):
        log.warning("Store reached without TLS", store=store, host=host)


def find_plaintext(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the stores, and hosts, that are reached in the clear at another machine."""
    for store, host, is_encrypted in (
        _read_postgresql(settings.database_url),
        *(_read_nats(part) for part in settings.nats_url.split(",")),
        _read_redis(settings.redis_url),
    ):
        if not (is_encrypted or is_loopback(host) or host.startswith("/")):
            yield store, host


def _read_postgresql(url: str) -> tuple[str, str, bool]:
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    host = options.get("host") or parts.hostname or ""
    return "PostgreSQL", host, options.get("sslmode") in ENCRYPTING_MODES


def _read_nats(url: str) -> tuple[str, str, bool]:
    parts = urlsplit(url.strip())
    return "NATS", parts.hostname or "", parts.scheme in ("tls", "wss")


def _read_redis(url: str) -> tuple[str, str, bool]:
    parts = urlsplit(url)
    return "Redis", parts.hostname or "", parts.scheme == "rediss"
