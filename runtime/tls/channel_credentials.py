"""The credentials of channels to servers of this system.

The command line reads them without the settings, whose import takes longer than a whole `diptych status`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from runtime.process.regular_file import UNUSABLE, read_regular_file
from runtime.process.setting_checks import check_text
from runtime.process.start_error import InvalidSetting
from runtime.tls.certificates import KeyPair, parse_certificates, parse_key_pair

CA, OWN = "DIPTYCH_TLS_CA", ("DIPTYCH_TLS_CERTIFICATE", "DIPTYCH_TLS_KEY")


@dataclass(frozen=True, slots=True)
class ClientCertificates:
    """By what a client verifies servers, and what it shows to them."""

    authorities: bytes
    """As PEM."""
    own: KeyPair | None

    def create_credentials(self) -> grpc.ChannelCredentials:
        if self.own is None:
            return grpc.ssl_channel_credentials(self.authorities)
        return grpc.ssl_channel_credentials(self.authorities, self.own.key, self.own.certificate)


def parse_client_certificates(
    authorities: bytes, certificate: bytes = b"", key: bytes = b""
) -> ClientCertificates:
    """Return the certificates of a client.

    Raises:
        ValueError: one cannot be read, or the client's own is not valid.
    """
    parse_certificates(authorities)
    return ClientCertificates(authorities, parse_key_pair(certificate, key) if certificate else None)


def read_credentials(variables: Mapping[str, str]) -> grpc.ChannelCredentials | None:
    """Return the credentials that environment variables name; None for calls without TLS.

    Raises:
        InvalidSetting: a file cannot be used.
    """
    if not variables.get(CA):
        return None
    has_own = all(map(variables.get, OWN))
    paths = [variables[name] for name in (CA, *(OWN if has_own else ()))]
    try:
        contents = [read_regular_file(Path(check_text(path))) for path in paths]
        return parse_client_certificates(*contents).create_credentials()
    except UNUSABLE as error:
        raise InvalidSetting(f"{CA}: cannot use {', '.join(paths)}: {error}") from error
