"""The process manager's token by client credentials (RFC 6749, section 4.4), from the issuer's endpoint.

A token is fetched when two thirds of the previous one's life have passed, so that the endpoint may be away
for the rest of it. The secret's file is read for each request: a new secret counts without a restart.
"""

import asyncio
import json
import random
from base64 import b64encode
from http.client import HTTPException
from math import isfinite
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import quote_plus, urlencode

import jwt

from runtime import http_fetch
from runtime.process import logs
from runtime.process.regular_file import UNUSABLE, read_regular_file
from runtime.process.settings import Settings
from runtime.process.start_error import InvalidSetting

RENEWED_AFTER = 2 / 3
"""The part of a token's life after which the next one is fetched."""
UNKNOWN_LIFETIME = 300.0
"""Seconds after which a token that does not say when it expires is taken for old."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before the first repetition of a failed request, and at most before a further one."""
LONGEST_SLEEP = 10.0
SETTING = "DIPTYCH_TOKEN_ENDPOINT"

log = logs.get_logger(__name__)


class ClientCredentials:
    """Fetches tokens and keeps the latest one in memory.

    Args:
        settings: name the endpoint, the client and its secret.

    Raises:
        InvalidSetting: a setting is missing, or the endpoint would be asked without TLS.
    """

    setting = SETTING

    def __init__(self, settings: Settings) -> None:
        self.name = settings.token_endpoint
        self.problem = "no token was fetched yet"
        self._client_id, self._secret_file = settings.token_client_id, settings.token_client_secret
        if not (self._client_id and self._secret_file):
            raise InvalidSetting(
                f"{SETTING}: also needs DIPTYCH_TOKEN_CLIENT_ID and DIPTYCH_TOKEN_CLIENT_SECRET"
            )
        if self.name.startswith("http://") and not (
            settings.jwks_allow_http or http_fetch.is_loopback(self.name)
        ):
            text = (
                "use https, or set DIPTYCH_JWKS_ALLOW_HTTP if nobody can listen to what this network carries"
            )
            raise InvalidSetting(f"{SETTING}: is a URL of another host without TLS: {text}")
        fields = {
            "grant_type": "client_credentials",
            "scope": settings.token_client_scope,
            "audience": settings.token_client_audience,
        }
        self._form = urlencode({name: value for name, value in fields.items() if value}).encode()
        self._token = ""
        self._failures = 0
        self._fetched_at = 0.0
        self._due_at = 0.0
        """Time of the next request, by the clock: it also passes while a machine sleeps."""

    def read(self) -> str:
        if not self._token:
            raise OSError(f"no token: {self.problem}")
        return self._token

    def note_rejection(self) -> None:
        """Fetch another token within seconds: the issuer may have changed its keys. Once in LONGEST_PAUSE."""
        if time() - self._fetched_at > LONGEST_PAUSE:
            self._due_at = min(self._due_at, time())

    async def prepare(self) -> None:
        await self.renew()

    async def run(self) -> None:
        """Keep the token renewed until cancelled."""
        while True:
            if time() >= self._due_at:
                await self.renew()
            await asyncio.sleep(max(0.0, min(self._due_at - time(), LONGEST_SLEEP)))

    async def renew(self) -> None:
        """Fetch a token, and note when to do so again; a failure leaves the present one in use."""
        try:
            self._token, lifetime = parse_answer(
                await http_fetch.fetch(self.name, self._form, self._headers())
            )
        except (*UNUSABLE, TimeoutError, HTTPException) as error:
            pause = min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE) * random.uniform(0.8, 1.2)  # noqa: S311
            self.problem, self._failures = _describe(error), min(self._failures + 1, 10)
            log.warning(
                "Token of the process manager not fetched", error=self.problem, retry_after=round(pause, 1)
            )
        else:
            pause = max(lifetime * RENEWED_AFTER, FIRST_PAUSE)
            self.problem, self._failures = "the token endpoint gave no newer one", 0
            self._fetched_at = time()
            log.info("Token of the process manager fetched", lifetime=round(lifetime))
        self._due_at = time() + pause

    def _headers(self) -> dict[str, str]:
        """Return the headers with the client's id and secret, encoded as section 2.3.1 demands.

        Raises:
            OSError, ValueError: the secret cannot be read.
        """
        try:
            secret = read_regular_file(Path(self._secret_file)).decode().strip()
        except OSError as error:
            raise OSError(f"DIPTYCH_TOKEN_CLIENT_SECRET: cannot read the file: {error}") from error
        if not secret:
            raise ValueError("DIPTYCH_TOKEN_CLIENT_SECRET: the file is empty")
        pair = f"{quote_plus(self._client_id)}:{quote_plus(secret)}"
        return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}", "Accept": "application/json"}


def parse_answer(body: bytes) -> tuple[str, float]:
    """Return the token and its lifetime in seconds.

    Raises:
        ValueError: the answer is no token of the type Bearer.
    """
    answer = json.loads(body)
    if not isinstance(answer, dict):
        raise ValueError("the answer is no JSON object")
    token = answer.get("access_token")
    if not (isinstance(token, str) and token and token.isascii() and token.isprintable()):
        raise ValueError("the answer has no access_token")
    if str(answer.get("token_type", "")).lower() != "bearer":
        raise ValueError("the answer has a token_type other than Bearer")
    lifetime = _read_seconds(answer.get("expires_in"))
    if lifetime is None:
        lifetime = _read_lifetime(token)
    if lifetime <= 0:
        raise ValueError("the token has expired already")
    return token, lifetime


def _read_lifetime(token: str) -> float:
    """Return the seconds until a token's `exp`, or UNKNOWN_LIFETIME."""
    try:
        expiry = _read_seconds(jwt.decode(token, options={"verify_signature": False})["exp"])
    except (jwt.PyJWTError, LookupError, TypeError, *UNUSABLE):
        expiry = None
    return UNKNOWN_LIFETIME if expiry is None else expiry - time()


def _read_seconds(value: Any) -> float | None:
    """Return a finite number, also of a text, as some endpoints send; None for anything else."""
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if isfinite(seconds) else None


def _describe(error: BaseException) -> str:
    """Return an error with the code of RFC 6749, section 5.2, if the answer has one."""
    if isinstance(error, http_fetch.StatusRefused):
        try:
            code = json.loads(error.body)["error"]
        except (LookupError, TypeError, ValueError, RecursionError):
            return str(error)
        return f"{error}, {str(code)[:100]}"
    return str(error) or repr(error)
