"""The NATS URL: its servers, and the options of TLS."""

import ssl
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from runtime.process.start_error import InvalidSetting
from runtime.tls.store_context import StoreContext

SETTING = "DIPTYCH_NATS_URL"
TLS_SCHEMES = ("tls", "wss")


@dataclass(frozen=True, slots=True)
class NatsUrl:
    """The servers of a cluster, and how to connect to them."""

    servers: list[str]
    tls: StoreContext | None
    """None for connections without TLS."""


def parse_nats_url(text: str) -> NatsUrl:
    """Return the parts of a URL, whose options may stand at any of its servers.

    Raises:
        InvalidSetting: a file cannot be used.
    """
    parts = [urlsplit(part.strip()) for part in text.split(",")]
    options = {name: value for part in parts for name, value in parse_qsl(part.query)}
    servers = [urlunsplit(part._replace(query="")) for part in parts]
    if not any(part.scheme in TLS_SCHEMES for part in parts):
        return NatsUrl(servers, None)
    try:
        return NatsUrl(servers, _create_context(options))
    except OSError as error:
        raise InvalidSetting(f"{SETTING}: cannot use ca, cert or key: {error}") from error


def _create_context(options: dict[str, str]) -> StoreContext:
    def create() -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=options.get("ca"))
        if "cert" in options:
            context.load_cert_chain(options["cert"], options.get("key"))
        return context

    return StoreContext(SETTING, [options[name] for name in ("ca", "cert", "key") if name in options], create)
