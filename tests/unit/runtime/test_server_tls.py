"""The TLS of a server: settings and files that it refuses, and addresses that need it."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from operations.provision.authority import issue
from runtime.process.settings import Settings
from runtime.process.start_error import InvalidSetting, StartError
from runtime.tls import server_tls
from runtime.tls.certificates import parse_certificates, parse_key_pair
from runtime.tls.server_tls import check_plaintext, open_server_tls
from tests.support.harness.authority import HOUR, Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_without_settings_there_is_no_tls() -> None:
    assert open_server_tls(Settings()) is None


def test_a_server_has_the_certificates_of_its_settings(authority: Authority) -> None:
    settings = Settings(
        **authority.settings(),
        tls_client_ca=str(authority.path),
        tls_client_certificates="optional",
        grpc_server="h2corn",
    )
    tls = open_server_tls(settings)
    assert tls is not None
    content = tls.files.content
    assert content.own.certificate == Path(settings.tls_certificate).read_bytes()
    assert content.client_authorities == authority.path.read_bytes()


@pytest.mark.parametrize(
    ("left_out", "added", "problem"),
    [
        ("tls_key", {}, "DIPTYCH_TLS_CERTIFICATE, DIPTYCH_TLS_KEY: one of them is empty"),
        ("tls_certificate", {}, "DIPTYCH_TLS_CERTIFICATE, DIPTYCH_TLS_KEY: one of them is empty"),
        ("tls_client_ca", {"tls_client_certificates": "required"}, "DIPTYCH_TLS_CLIENT_CA is empty"),
        ("", {"tls_client_certificates": "none"}, "is none, and DIPTYCH_TLS_CLIENT_CA is set"),
        ("", {"grpc_server": "grpc.aio", "tls_client_certificates": "optional"}, "grpc.aio knows none and"),
        ("", {"tls_client_ca": "/absent"}, "DIPTYCH_TLS_CERTIFICATE: cannot use .*/absent: .*No such file"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    authority: Authority, left_out: str, added: dict[str, str], problem: str
) -> None:
    chosen: dict[str, Any] = {
        **authority.settings(),
        "tls_client_ca": str(authority.path),
        "tls_client_certificates": "required",
        **added,
    }
    chosen.pop(left_out, None)
    with pytest.raises(InvalidSetting, match=problem):
        open_server_tls(Settings(**chosen))


def test_clients_cannot_be_asked_without_tls(authority: Authority) -> None:
    with pytest.raises(InvalidSetting, match="DIPTYCH_TLS_CERTIFICATE: is empty, and"):
        open_server_tls(Settings(tls_client_ca=str(authority.path), tls_client_certificates="required"))


def test_a_pair_that_cannot_be_used_is_refused(authority: Authority) -> None:
    pair, other = issue(authority.pair, "a"), issue(authority.pair, "b")
    encrypted = pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    expired = issue(authority.pair, "a", lifetime=-timedelta(seconds=1))
    cases = {
        "the key is not that of the certificate": (pair.certificate_pem, other.key_pem),
        "the key cannot be read": (pair.certificate_pem, encrypted),
        "the certificates cannot be read": (b"", pair.key_pem),
        "the certificate expired at": (expired.certificate_pem, expired.key_pem),
    }
    for problem, (certificate, key) in cases.items():
        with pytest.raises(ValueError, match=problem):
            parse_key_pair(certificate, key)
    with pytest.raises(ValueError, match="cannot be read"):
        parse_certificates(pair.key_pem)
    accepted = parse_key_pair(pair.certificate_pem + authority.pair.certificate_pem, pair.key_pem)
    assert accepted.expires == pair.certificate.not_valid_after_utc < accepted.begins + 2 * HOUR


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1"])
def test_a_loopback_address_needs_no_tls(address: str) -> None:
    check_plaintext(address, is_insecure=False)


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "server:1", "localhost.example:1"])
def test_another_address_needs_tls_or_the_operators_word(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(server_tls.log, "warning", lambda message, **_: warnings.append(message))
    with pytest.raises(StartError, match=r"cannot listen on .* without TLS: .*DIPTYCH_INSECURE=1"):
        check_plaintext(address, is_insecure=False)
    assert warnings == []
    check_plaintext(address, is_insecure=True)
    assert warnings == ["Calls served without TLS"]
