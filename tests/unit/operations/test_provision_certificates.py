"""The certificates of a deployment: one for each process and store, of one authority that stays."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from operations.processes import KINDS
from operations.provision.certificates import PROCESSES, STORES, provision
from runtime.process.start_error import StartError
from runtime.tls.certificates import parse_key_pair

DAY = timedelta(days=1)


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_each_process_and_store_has_a_certificate_with_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    provision(folder, ["all.internal", "10.0.0.7", "nats=nats.internal"], DAY, 10 * DAY)
    assert folder.stat().st_mode & 0o777 == 0o700
    authority = read(folder / "ca.pem")
    assert {kind.name for kind in KINDS} < set(PROCESSES)
    for name in (*PROCESSES, *STORES):
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        parse_key_pair(certificate.read_bytes(), key.read_bytes())
        assert key.stat().st_mode & 0o777 == 0o600
        leaf = read(certificate)
        leaf.verify_directly_issued_by(authority)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://diptych/{name}"]
        addresses = set(map(str, names.get_values_for_type(x509.IPAddress)))
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        hosts = set(names.get_values_for_type(x509.DNSName))
        if name in ("relay", "projector", "operator"):
            assert (hosts, addresses, list(usages)) == (set(), set(), [ExtendedKeyUsageOID.CLIENT_AUTH])
        else:
            own = {"nats.internal"} if name == "nats" else set()
            assert hosts == {"localhost", "all.internal", *own}
            assert addresses == {"127.0.0.1", "::1", "10.0.0.7"}
            assert ExtendedKeyUsageOID.SERVER_AUTH in usages
    assert len(list(folder.iterdir())) == 2 * (1 + len(PROCESSES) + len(STORES))


def test_renewed_certificates_are_of_the_same_authority(tmp_path: Path) -> None:
    provision(tmp_path, [], DAY, DAY)
    authority, before = (tmp_path / "ca.pem").read_bytes(), read(tmp_path / "relay.pem")
    lines = provision(tmp_path, [], 3 * DAY, DAY)
    assert (tmp_path / "ca.pem").read_bytes() == authority
    after = read(tmp_path / "relay.pem")
    after.verify_directly_issued_by(read(tmp_path / "ca.pem"))
    assert after.serial_number != before.serial_number
    assert after.not_valid_after_utc == read(tmp_path / "ca.pem").not_valid_after_utc, "not later"
    assert lines[0].startswith("ca  ")


def test_an_authority_that_cannot_be_used_is_not_replaced(tmp_path: Path) -> None:
    provision(tmp_path, [], DAY, timedelta(seconds=-1))
    with pytest.raises(StartError, match="the authority has expired"):
        provision(tmp_path, [], DAY, DAY)
    (tmp_path / "ca.key").write_bytes((tmp_path / "relay.key").read_bytes())
    with pytest.raises(StartError, match=r"ca\.key is not the key of ca\.pem"):
        provision(tmp_path, [], DAY, DAY)
    (tmp_path / "ca.key").write_bytes(b"")
    with pytest.raises(StartError, match="cannot be read"):
        provision(tmp_path, [], DAY, DAY)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(StartError, match=r"has ca\.pem without its other half"):
        provision(tmp_path, [], DAY, DAY)


@pytest.mark.parametrize("host", ["", "a b", "a:1", "https://a", "-a", "a..b", "x" * 300])
def test_a_host_that_is_none_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(StartError, match=r"--host .*: is neither a name nor an address"):
        provision(tmp_path, [host], DAY, DAY)
    with pytest.raises(StartError, match=r"--host 'relay=a': 'relay' is none of command_server, "):
        provision(tmp_path, ["relay=a"], DAY, DAY)
    assert not list(tmp_path.iterdir())
