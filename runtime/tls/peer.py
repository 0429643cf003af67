"""The name in a client's certificate, which TLS has verified."""

from dataclasses import dataclass

from cryptography import x509

from runtime.tls.certificates import parse_certificates

SPIFFE = "spiffe://"
MAX_NAME_LENGTH = 255


@dataclass(frozen=True, slots=True)
class Peer:
    """Who a certificate is of."""

    name: str
    """Its SPIFFE id; the subject as in RFC 4514, for instance `CN=reports,O=Example`, if it has none."""
    expires_at: float
    """In seconds since 1970."""


def parse_peer(pem: bytes) -> Peer:
    """Return the peer of a certificate.

    Raises:
        ValueError: the certificate cannot be read, has several SPIFFE ids, or its name is too long or not
            printable.
    """
    certificate = parse_certificates(pem)[0]
    ids = _find_spiffe_ids(certificate)
    if len(ids) > 1:
        raise ValueError("the certificate has several SPIFFE ids")
    name = ids[0] if ids else certificate.subject.rfc4514_string()
    if not 0 < len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise ValueError("the certificate has no name of printable characters")
    return Peer(name, certificate.not_valid_after_utc.timestamp())


def _find_spiffe_ids(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return [uri for uri in uris if uri.lower().startswith(SPIFFE)]
