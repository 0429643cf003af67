"""Warns before the process manager's token expires: it has to be renewed, or sagas stop."""

import asyncio
from datetime import UTC, datetime
from time import time

import jwt

from process_manager.dispatch.token_source import TokenSource
from runtime.process import logs
from runtime.process.regular_file import UNUSABLE

log = logs.get_logger(__name__)

CHECK_INTERVAL = 10.0
"""Seconds between two looks at the token."""
WARNED_PART = 0.1
"""The last part of a token's life, in which its renewal is overdue."""


class TokenExpiry:
    """Logs once that a token is about to expire, and once that it has.

    A source without a token is the concern of the steps, which are not sent then.

    Args:
        source: of the token.
    """

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self._warned = ("", False)
        """The token of the last line, and whether that said that it has expired."""

    async def run(self) -> None:
        """Check the token until cancelled."""
        while True:
            self.check()
            await asyncio.sleep(CHECK_INTERVAL)

    def check(self) -> None:
        try:
            token = self._source.read()
            claims = jwt.decode(token, options={"verify_signature": False})
            issued, expiry = float(claims["iat"]), float(claims["exp"])
            expires = datetime.fromtimestamp(expiry, UTC).isoformat()
        except (*UNUSABLE, jwt.PyJWTError, LookupError, TypeError):
            return
        left = expiry - time()
        if left > (expiry - issued) * WARNED_PART or (token, left <= 0) == self._warned:
            return
        self._warned = token, left <= 0
        fields = {"source": self._source.name, "expires": expires, "error": self._source.problem}
        if left <= 0:
            log.error("Token of the process manager has expired", **fields)
        else:
            log.warning("Token of the process manager expires soon", **fields)
