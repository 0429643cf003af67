"""TLS of calls from one process to another."""

from collections.abc import Iterable

import grpc.aio

from runtime.process import logs
from runtime.process.loopback import is_loopback
from runtime.process.settings import Settings
from runtime.process.start_error import StartError
from runtime.process.watched_files import WatchedFiles
from runtime.tls.channel_credentials import ClientCertificates, parse_client_certificates

ClientTls = WatchedFiles[ClientCertificates]

log = logs.get_logger(__name__)


def open_client_tls(settings: Settings) -> ClientTls | None:
    """Return the certificates for calls to other processes; None for calls without TLS.

    Raises:
        InvalidSetting: a file cannot be used.
    """
    if not settings.tls_ca:
        return None
    own = [settings.tls_certificate, settings.tls_key]
    paths = [settings.tls_ca, *(own if all(own) else [])]
    return WatchedFiles("DIPTYCH_TLS_CA", paths, parse_client_certificates)


def open_channel(
    address: str, tls: ClientTls | None, options: Iterable[tuple[str, int]] = ()
) -> grpc.aio.Channel:
    """Return a channel with the present certificates; it keeps them when they change."""
    arguments = list(options)
    if tls is None:
        return grpc.aio.insecure_channel(address, arguments)
    return grpc.aio.secure_channel(address, tls.content.create_credentials(), arguments)


def check_targets(addresses: Iterable[str], tls: ClientTls | None, is_insecure: bool) -> None:
    """Check the addresses to which tokens are sent.

    Args:
        addresses: of servers, `host:port`.
        tls: of the calls.
        is_insecure: the setting `insecure`.

    Raises:
        StartError: one is not a loopback address, and there is no TLS.
    """
    if tls is not None:
        return
    for address in addresses:
        if is_loopback(address.rpartition(":")[0]):
            continue
        if not is_insecure:
            raise StartError(
                f"cannot call {address} without TLS: set DIPTYCH_TLS_CA, or DIPTYCH_INSECURE=1 if nobody can"
                " read or alter what this network carries"
            )
        log.warning("Calls sent without TLS", address=address)
