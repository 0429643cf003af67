"""Warns before the process manager's token expires: somebody has to renew its file, or sagas stop."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from time import time

import jwt

from runtime.process import logs
from runtime.process.regular_file import UNUSABLE, read_regular_file

log = logs.get_logger(__name__)

CHECK_INTERVAL = 10.0
"""Seconds between two looks at the file."""
WARNED_PART = 0.1
"""The last part of a token's life, in which its renewal is overdue."""


class TokenExpiry:
    """Logs once that a token is about to expire, and once that it has.

    A file that cannot be read, or holds no token, is the concern of the steps, which are not sent then.

    Args:
        file: that holds the token.
    """

    def __init__(self, file: str) -> None:
        self._file = Path(file)
        self._warned = ("", False)
        """The token of the last line, and whether that said that it has expired."""

    async def run(self) -> None:
        """Check the file until cancelled."""
        while True:
            self.check()
            await asyncio.sleep(CHECK_INTERVAL)

    def check(self) -> None:
        try:
            token = read_regular_file(self._file).decode().strip()
            claims = jwt.decode(token, options={"verify_signature": False})
            issued, expiry = float(claims["iat"]), float(claims["exp"])
            expires = datetime.fromtimestamp(expiry, UTC).isoformat()
        except (*UNUSABLE, jwt.PyJWTError, LookupError, TypeError):
            return
        left = expiry - time()
        if left > (expiry - issued) * WARNED_PART or (token, left <= 0) == self._warned:
            return
        self._warned = token, left <= 0
        fields = {"file": str(self._file), "expires": expires}
        if left <= 0:
            log.error("Token of the process manager has expired", error="the file was not renewed", **fields)
        else:
            log.warning(
                "Token of the process manager expires soon", error="the file was not renewed", **fields
            )
