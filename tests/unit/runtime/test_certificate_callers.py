"""The names in certificates, and the table of callers."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from runtime.grpc.certificate_callers import CertificateCallers, TableEntry, open_table, parse_table
from runtime.grpc.unauthenticated import Unauthenticated
from runtime.process.settings import Settings
from runtime.process.start_error import InvalidSetting
from runtime.process.watched_files import WatchedFiles
from runtime.tls.peer import parse_peer

ENDS = datetime(2100, 1, 1, tzinfo=UTC)
ID = "spiffe://diptych/reports"


def certify(name: str = "reports", uris: Sequence[str] = ()) -> bytes:
    """Return a certificate as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    parts = ((x509.NameOID.ORGANIZATION_NAME, "Acme"), (x509.NameOID.COMMON_NAME, name))
    subject = x509.Name([x509.NameAttribute(kind, value) for kind, value in parts if value])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1)
    builder = builder.not_valid_before(datetime(2000, 1, 1, tzinfo=UTC)).not_valid_after(ENDS)
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


class Context:
    """A call with a client's certificate."""

    def __init__(self, *pem: bytes) -> None:
        self._pem = pem

    def auth_context(self) -> dict[str, Any]:
        return {"x509_pem_cert": self._pem}


def test_a_certificate_is_of_its_spiffe_id_or_else_of_its_subject() -> None:
    assert parse_peer(certify(uris=["https://a.example", ID])).name == ID
    peer = parse_peer(certify())
    assert (peer.name, peer.expires_at) == ("CN=reports,O=Acme", ENDS.timestamp())


@pytest.mark.parametrize(
    ("pem", "problem"),
    [
        (certify(uris=[ID, "spiffe://diptych/other"]), "several SPIFFE ids"),
        (certify("line\nbreak"), "no name of printable characters"),
        (certify(uris=["spiffe://diptych/" + "x" * 300]), "no name of printable characters"),
        (b"", "cannot be read"),
    ],
)
def test_a_certificate_without_a_usable_name_is_of_nobody(pem: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_peer(pem)


def test_a_table_has_the_scopes_of_names() -> None:
    content = b'{"spiffe://a/b": ["x.read", "x.write"], "CN=c": []}'
    assert parse_table(content) == {"spiffe://a/b": {"x.read", "x.write"}, "CN=c": set()}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "Expecting value"),
        (b"[]", "is no JSON object"),
        (b'{"a": ["x"], "a": ["y"]}', "has a twice"),
        (b'{"a": "x y"}', "a has no list of scopes"),
        (b'{"a": {"x": 1}}', "a has no list of scopes"),
        (b'{"a": [1]}', "a has no list of scopes"),
        (b'{"": []}', "is not the name of a certificate"),
        (b'{"a\\nb": []}', "is not the name of a certificate"),
    ],
)
def test_a_table_that_is_none_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_table(content)


async def test_a_caller_has_the_scopes_of_the_table_as_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "callers.json"
    table.write_text(f'{{"{ID}": ["a"]}}')
    callers = CertificateCallers(WatchedFiles("S", [str(table)], parse_table))
    context: Any = Context(certify(uris=[ID]))
    identity = callers.identify(context)
    assert (identity.caller.subject, identity.caller.scopes) == (ID, frozenset("a"))
    assert identity.caller.on_behalf_of is None
    assert identity.caller.expires_at == ENDS.timestamp()
    assert identity.entry == TableEntry(ID, frozenset("a"))
    assert callers.identify(context) is identity
    table.write_text(f'{{"{ID}": ["a", "b"]}}')
    await callers.files.reload()
    assert callers.identify(context).caller.scopes == {"a", "b"}
    assert not callers.has(identity.entry)
    monkeypatch.setattr("runtime.grpc.certificate_callers.time.time", lambda: ENDS.timestamp())
    assert read_error(callers, context) == {"cause": "CERTIFICATE_EXPIRED", "certificate": ID}


def read_error(callers: CertificateCallers, context: Any) -> dict[str, str]:
    with pytest.raises(Unauthenticated) as error:
        callers.identify(context)
    return error.value.metadata


def test_a_certificate_that_is_not_in_the_table_is_of_nobody(tmp_path: Path) -> None:
    table = tmp_path / "callers.json"
    table.write_text("{}")
    callers = CertificateCallers(WatchedFiles("S", [str(table)], parse_table))
    assert read_error(callers, Context()) == {"cause": "MISSING"}
    assert read_error(callers, Context(certify("\n"))) == {"cause": "CERTIFICATE_INVALID"}
    unknown = {"cause": "CERTIFICATE_UNKNOWN", "certificate": "CN=reports,O=Acme"}
    assert read_error(callers, Context(certify())) == unknown


def test_a_table_needs_certificates_of_clients(tmp_path: Path) -> None:
    assert open_table(Settings()) is None
    with pytest.raises(InvalidSetting, match="DIPTYCH_TLS_CALLERS: is set, and DIPTYCH_TLS_CLIENT_CERT"):
        open_table(Settings(tls_callers="a.json"))
    with pytest.raises(InvalidSetting, match=r"DIPTYCH_TLS_CALLERS: cannot use .*No such file"):
        open_table(
            Settings(tls_callers=str(tmp_path / "absent"), tls_client_certificates="required"),
        )
