"""The log says once that a certificate expires soon, and once that it has expired."""

from datetime import UTC, datetime, timedelta

import pytest

from runtime.telemetry.metrics import CERTIFICATE_LEFT
from runtime.tls import expiry
from runtime.tls.certificates import KeyPair
from runtime.tls.expiry import CertificateExpiry


def pair(left: float) -> KeyPair:
    """Return the certificate of a hundred hours that expires in so many."""
    now = datetime.now(UTC)
    return KeyPair(b"", b"", now - timedelta(hours=100 - left), now + timedelta(hours=left))


def test_a_certificate_that_expires_is_reported_once_before_and_once_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    for level in ("warning", "error"):
        monkeypatch.setattr(expiry.log, level, lambda message, **_: lines.append(message))
    in_use = [pair(11)]
    watched = CertificateExpiry(lambda: in_use[0])
    for renewed in (pair(11), pair(9), pair(0), pair(50)):
        in_use[0] = renewed
        watched.check()
        watched.check()
    assert lines == ["Certificate expires soon", "Certificate has expired"]
    ((_, left),) = CERTIFICATE_LEFT.read_values().items()
    assert 49 * 3600 < left <= 50 * 3600
