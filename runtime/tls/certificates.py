"""Certificates with their keys, and the authorities that sign those of others."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its key, as PEM."""

    certificate: bytes
    """With the certificates of intermediate authorities, if there are any."""
    key: bytes
    begins: datetime
    expires: datetime


def parse_key_pair(certificate: bytes, key: bytes) -> KeyPair:
    """Return a certificate with its key.

    Raises:
        ValueError: one of them cannot be read, the key is of another certificate, or the certificate is not
            valid now.
    """
    leaf = parse_certificates(certificate)[0]
    try:
        public_key = load_pem_private_key(key, password=None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
        raise ValueError(f"the key cannot be read: {_first_line(error)}") from error
    if leaf.public_key() != public_key:
        raise ValueError("the key is not that of the certificate")
    begins, expires, now = leaf.not_valid_before_utc, leaf.not_valid_after_utc, datetime.now(UTC)
    if now >= expires:
        raise ValueError(f"the certificate expired at {expires.isoformat()}")
    if now < begins:
        raise ValueError(f"the certificate is valid from {begins.isoformat()} on")
    return KeyPair(certificate, key, begins, expires)


def parse_certificates(pem: bytes) -> Sequence[x509.Certificate]:
    """Return one or more certificates.

    Raises:
        ValueError: there is none, or one cannot be read.
    """
    try:
        return x509.load_pem_x509_certificates(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"the certificates cannot be read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
