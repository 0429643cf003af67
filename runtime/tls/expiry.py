"""Warns before the certificate of a server expires: somebody has to renew its files, or clients stay away."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from runtime.process import logs
from runtime.telemetry.metrics import CERTIFICATE_LEFT
from runtime.tls.certificates import KeyPair

log = logs.get_logger(__name__)

CHECK_INTERVAL = 10.0
"""Seconds between two looks at the clock."""
WARNED_PART = 0.1
"""The last part of a certificate's life, in which its renewal is overdue."""


class CertificateExpiry:
    """Logs once that a certificate is about to expire, and once that it has.

    Args:
        get_pair: returns the certificate in use.
    """

    def __init__(self, get_pair: Callable[[], KeyPair]) -> None:
        self._get_pair = get_pair
        self._warned: tuple[KeyPair, bool] | None = None
        """The certificate of the last line, and whether that said that it has expired."""
        CERTIFICATE_LEFT.observe(lambda: self.compute_left().total_seconds())

    def compute_left(self) -> timedelta:
        """Return the time until the certificate expires."""
        return self._get_pair().expires - datetime.now(UTC)

    async def run(self) -> None:
        """Check the certificate until cancelled."""
        while True:
            self.check()
            await asyncio.sleep(CHECK_INTERVAL)

    def check(self) -> None:
        pair, left = self._get_pair(), self.compute_left()
        has_expired = left <= timedelta()
        if left > (pair.expires - pair.begins) * WARNED_PART or (pair, has_expired) == self._warned:
            return
        self._warned = pair, has_expired
        fields = {"error": "the files were not renewed", "expires": pair.expires.isoformat()}
        if has_expired:
            log.error("Certificate has expired", **fields)
        else:
            log.warning("Certificate expires soon", **fields)
