"""The NATS URL: its servers, the key of the user, and the options of TLS."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import nkeys

from runtime.process.start_error import InvalidSetting
from runtime.tls.store_context import StoreContext

SETTING = "DIPTYCH_NATS_URL"
TLS_SCHEMES = ("tls", "wss")
DEFAULT_INBOX_PREFIX = "_INBOX"


@dataclass(frozen=True, slots=True)
class NatsUrl:
    """The servers of a cluster, and how to connect to them."""

    servers: list[str]
    tls: StoreContext | None
    """None for connections without TLS."""
    nkey: str
    """The file with the seed of the user's NKEY; empty for none."""
    inbox_prefix: str
    """Of the subjects under which the user receives replies."""


def parse_nats_url(text: str) -> NatsUrl:
    """Return the parts of a URL, whose options may stand at any of its servers.

    Raises:
        InvalidSetting: a file cannot be used.
    """
    parts = [urlsplit(part.strip()) for part in text.split(",")]
    options = {name: value for part in parts for name, value in parse_qsl(part.query)}
    servers = [urlunsplit(part._replace(query="")) for part in parts]
    nkey, prefix = options.get("nkey", ""), DEFAULT_INBOX_PREFIX
    if nkey:
        prefix = create_inbox_prefix(_read_public_key(nkey))
    if not any(part.scheme in TLS_SCHEMES for part in parts):
        return NatsUrl(servers, None, nkey, prefix)
    try:
        return NatsUrl(servers, _create_context(options), nkey, prefix)
    except OSError as error:
        raise InvalidSetting(f"{SETTING}: cannot use ca, cert or key: {error}") from error


def create_inbox_prefix(public_key: str) -> str:
    """Return the prefix of the subjects that only the user with this key may receive."""
    return f"{DEFAULT_INBOX_PREFIX}_{public_key}"


def derive_public_key(seed: bytes) -> str:
    """Return the public key of an NKEY.

    Raises:
        ValueError: it is not the seed of one.
    """
    try:
        key: bytes = nkeys.from_seed(bytearray(seed.strip())).public_key
    except (ValueError, nkeys.NkeysError) as error:
        raise ValueError("it is not the seed of an NKEY") from error
    return key.decode()


def _read_public_key(path: str) -> str:
    try:
        return derive_public_key(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidSetting(f"{SETTING}: cannot use nkey={path}: {error}") from error


def _create_context(options: dict[str, str]) -> StoreContext:
    def create() -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=options.get("ca"))
        if "cert" in options:
            context.load_cert_chain(options["cert"], options.get("key"))
        return context

    return StoreContext(SETTING, [options[name] for name in ("ca", "cert", "key") if name in options], create)
