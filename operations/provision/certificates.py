"""An authority, and certificates of all processes and stores, as files in a folder."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from operations.processes import KINDS
from operations.provision.authority import Pair, create_authority, issue
from operations.provision.secret_files import make_folder, write_file
from runtime.process.start_error import StartError

TRUST_DOMAIN = "diptych"
OPERATOR = "operator"
"""Whoever calls `diptych`."""
STORES = ("postgresql", "nats", "redis")
PROCESSES = (*(kind.name for kind in KINDS), OPERATOR)
SERVERS = (*(kind.name for kind in KINDS if kind.serves_calls), *STORES)
"""Those that are reached by TLS. The others have certificates for clients alone."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""The hosts that all servers have."""
AUTHORITY = "ca"
_HOST = re.compile(r"(?=.{1,253}\Z)(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_-]+)*")


def provision(
    folder: Path,
    hosts: Sequence[str],
    lifetime: timedelta,
    authority_lifetime: timedelta,
) -> list[str]:
    """Write certificates and keys; return a line for each.

    The authority is made once. Everything else is made anew each time.

    Args:
        folder: for the files; made if need be.
        hosts: names and addresses at which the servers are reached, besides those of this machine; as
            `process=host` those of one process or store.
        lifetime: of the certificates.
        authority_lifetime: of a new authority.

    Raises:
        StartError: a host is none, or the authority cannot be used or written.
    """
    own_hosts = _read_hosts(hosts)
    make_folder(folder)
    authority = _open_authority(folder, authority_lifetime)
    lines = [_describe(AUTHORITY, authority)]
    for name in (*PROCESSES, *STORES):
        spiffe_id = f"spiffe://{TRUST_DOMAIN}/{name}"
        pair = issue(authority, name, own_hosts.get(name, ()), spiffe_id, lifetime)
        _write(folder, name, pair)
        lines.append(_describe(name, pair))
    return lines


def _read_hosts(hosts: Sequence[str]) -> dict[str, list[str]]:
    """Return the hosts of each server.

    Raises:
        StartError: one is no host, or of no server.
    """
    own_hosts = {name: list(LOOPBACK) for name in SERVERS}
    for text in hosts:
        name, separator, host = text.rpartition("=")
        if separator and name not in SERVERS:
            raise StartError(f"--host {text!r}: {name!r} is none of {', '.join(SERVERS)}")
        _check_host(host)
        for server in [name] if separator else SERVERS:
            own_hosts[server].append(host)
    return own_hosts


def _check_host(host: str) -> None:
    try:
        ip_address(host)
    except ValueError:
        if not _HOST.fullmatch(host):
            raise StartError(f"--host {host!r}: is neither a name nor an address") from None


def _open_authority(folder: Path, lifetime: timedelta) -> Pair:
    paths = _certificate_path(folder, AUTHORITY), _key_path(folder, AUTHORITY)
    present = [path for path in paths if path.exists()]
    if not present:
        authority = create_authority(lifetime)
        _write(folder, AUTHORITY, authority)
        return authority
    if len(present) == 1:
        raise StartError(
            f"{folder}: has {present[0].name} without its other half; restore it, or remove both"
        )
    try:
        certificate = x509.load_pem_x509_certificate(paths[0].read_bytes())
        key = load_pem_private_key(paths[1].read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise StartError(f"{folder}: the authority cannot be read: {error}") from error
    if not isinstance(key, EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise StartError(f"{folder}: {paths[1].name} is not the key of {paths[0].name}")
    if certificate.not_valid_after_utc <= datetime.now(UTC):
        raise StartError(f"{folder}: the authority has expired; move its files away to make a new one")
    return Pair(certificate, key)


def _write(folder: Path, name: str, pair: Pair) -> None:
    """Replace a key and its certificate. Processes that read in between keep what they have."""
    write_file(_key_path(folder, name), pair.key_pem.decode())
    write_file(_certificate_path(folder, name), pair.certificate_pem.decode(), 0o644)


def _certificate_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.pem"


def _key_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.key"


def _describe(name: str, pair: Pair) -> str:
    return f"{name:18} until {pair.certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
