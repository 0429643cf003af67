"""TLS of a server: its certificate, and which certificates it wants of clients."""

from dataclasses import dataclass

from runtime.process import logs
from runtime.process.loopback import is_loopback
from runtime.process.settings import Settings
from runtime.process.start_error import InvalidSetting, StartError
from runtime.process.watched_files import WatchedFiles
from runtime.tls.certificates import KeyPair, parse_certificates, parse_key_pair

log = logs.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServerCertificates:
    """What a server shows to clients, and by what it verifies them."""

    own: KeyPair
    client_authorities: bytes
    """As PEM; empty if clients are not asked for a certificate."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """The TLS of a server's addresses."""

    files: WatchedFiles[ServerCertificates]
    client_certificates: str
    """`none`, `optional` or `required`."""

    def get_own(self) -> KeyPair:
        return self.files.content.own


def open_server_tls(settings: Settings) -> ServerTls | None:
    """Return the TLS that the settings name; None for none.

    Raises:
        InvalidSetting: a setting lacks another one, or a file cannot be used.
    """
    paths = [settings.tls_certificate, settings.tls_key]
    if not any(paths):
        if settings.tls_client_ca or settings.tls_client_certificates != "none":
            text = "is empty, and without a certificate the server cannot ask clients for theirs"
            raise InvalidSetting(f"DIPTYCH_TLS_CERTIFICATE: {text}")
        return None
    if not all(paths):
        raise InvalidSetting("DIPTYCH_TLS_CERTIFICATE, DIPTYCH_TLS_KEY: one of them is empty")
    mode = settings.tls_client_certificates
    if (mode == "none") != (not settings.tls_client_ca):
        text = f"is {mode}, and DIPTYCH_TLS_CLIENT_CA is {'set' if mode == 'none' else 'empty'}"
        raise InvalidSetting(f"DIPTYCH_TLS_CLIENT_CERTIFICATES: {text}")
    if mode == "optional" and settings.grpc_server == "grpc.aio":
        text = "optional is for DIPTYCH_GRPC_SERVER=h2corn; grpc.aio knows none and required"
        raise InvalidSetting(f"DIPTYCH_TLS_CLIENT_CERTIFICATES: {text}")
    if settings.tls_client_ca:
        paths.append(settings.tls_client_ca)
    return ServerTls(WatchedFiles("DIPTYCH_TLS_CERTIFICATE", paths, _parse), mode)


def _parse(certificate: bytes, key: bytes, client_authorities: bytes = b"") -> ServerCertificates:
    own = parse_key_pair(certificate, key)
    if client_authorities:
        parse_certificates(client_authorities)
    return ServerCertificates(own, client_authorities)


def check_plaintext(address: str, is_insecure: bool) -> None:
    """Check an address that serves calls without TLS.

    Args:
        address: `host:port`.
        is_insecure: the setting `insecure`.

    Raises:
        StartError: it is not a loopback address, so tokens would be sent in the clear.
    """
    if is_loopback(address.rpartition(":")[0]):
        return
    if not is_insecure:
        raise StartError(
            f"cannot listen on {address} without TLS: set DIPTYCH_TLS_CERTIFICATE and DIPTYCH_TLS_KEY, or"
            " DIPTYCH_INSECURE=1 if nobody can read or alter what this network carries"
        )
    log.warning("Calls served without TLS", address=address)
