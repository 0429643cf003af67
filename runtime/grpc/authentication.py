"""Authentication and authorisation of calls, by the JWT in their metadata.

How it works:

1. A call has the metadata `authorization: Bearer <token>`. The token must be signed with a key of the JWKS
   (`jwks`) and the only algorithm for that type of key. It must have our issuer and audience, a subject and
   a time of expiry.
2. The token's scopes must include the scope of the method (`access`).
3. Both checks precede the decoding of the request, so unauthenticated bytes are never parsed.
4. Verified tokens are cached until they expire. A change of the keys clears the cache, so that tokens of a
   withdrawn key become invalid.
5. The caller is available to everything in the call through `caller.current()`.
"""

import time
from typing import Any

import jwt

from runtime.grpc import caller, metadata
from runtime.grpc.caller import Caller
from runtime.grpc.jwks import ALGORITHMS, KeySet
from runtime.grpc.method import Context, Handler, Interceptor, Method
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.unauthenticated import Cause, Unauthenticated

CLOCK_SKEW = 5.0
"""Seconds by which the issuer's clock may differ from ours."""
_CACHE_SIZE = 10_000
"""Maximum number of verified tokens in the cache."""
_MAX_NAME_LENGTH = 255
_MAX_TIME = 253_402_300_799
"""The end of the year 9999, in seconds since 1970."""


def authenticate(tokens: "TokenVerifier") -> Interceptor:
    """Return an interceptor that admits calls with a valid token that includes the method's scope."""

    def wrap(method: Method, handler: Handler) -> Handler:
        async def authenticate_call(request: object, context: Context) -> object:
            authenticated_caller = await tokens.verify(_find_bearer_token())
            caller.set_current(authenticated_caller)
            if method.scope not in authenticated_caller.scopes:
                raise RpcError(
                    "SCOPE_MISSING",
                    f"{method.path} needs the scope {method.scope}",
                    {"scope": method.scope, "method": method.path},
                )
            return await handler(request, context)

        return authenticate_call

    return wrap


def _find_bearer_token() -> str:
    for key, value in metadata.current():
        if key == "authorization":
            scheme, _, token = str(value).partition(" ")
            if scheme.lower() == "bearer" and token:
                return token
    raise Unauthenticated(Cause.MISSING, "the call has no metadata `authorization: Bearer <token>`")


class TokenVerifier:
    """Verifies access tokens, with a cache of verified ones."""

    def __init__(self, keys: KeySet, issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._cache: dict[str, Caller] = {}
        self._generation = keys.generation
        """The generation of the keys that verified the tokens in the cache."""

    async def verify(self, token: str) -> Caller:
        """Return the caller that a token identifies.

        Raises:
            RpcError: `UNAUTHENTICATED`, or `KEYS_UNAVAILABLE` while no keys could be read.
        """
        self._keys.refresh()
        if self._generation != self._keys.generation:
            self._cache.clear()
            self._generation = self._keys.generation
        verified_caller = self._cache.get(token)
        if verified_caller is None or time.time() >= verified_caller.expires_at:
            verified_caller = await self._decode(token)
            self._add_to_cache(token, verified_caller)
        return verified_caller

    def _add_to_cache(self, token: str, verified_caller: Caller) -> None:
        if len(self._cache) >= _CACHE_SIZE:
            del self._cache[next(iter(self._cache))]  # dicts keep their order: this is the oldest entry
        self._cache[token] = verified_caller

    async def _decode(self, token: str) -> Caller:
        try:
            key = await self._keys.find(str(jwt.get_unverified_header(token).get("kid")))
            if key is None:
                raise self._unknown_key_error(token)
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[ALGORITHMS[key.key_type or ""]],
                issuer=self._issuer,
                audience=self._audience,
                leeway=CLOCK_SKEW,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.InvalidTokenError as error:
            raise Unauthenticated.of(error, token) from error
        except (ArithmeticError, ValueError, TypeError, RecursionError) as error:
            # PyJWT calculates with what the claims hold, and parses JSON of any depth.
            raise Unauthenticated(Cause.MALFORMED, "the token cannot be read", token) from error
        return _caller_from_claims(claims, token)

    def _unknown_key_error(self, token: str) -> RpcError:
        if self._keys.loaded and not self._keys.reloading:
            text = "the token is not valid: its key (kid) is unknown"
            return Unauthenticated(Cause.UNKNOWN_KEY, text, token)
        return RpcError("KEYS_UNAVAILABLE", "the keys of callers' tokens cannot be read", retry_after=1.0)


def _caller_from_claims(claims: dict[str, Any], token: str) -> Caller:
    for claim in ("exp", "nbf", "iat"):
        _check_time(claim, claims.get(claim, 0), token)
    scopes = claims.get("scope")
    on_behalf_of = claims.get("on_behalf_of")
    return Caller(
        subject=_check_name("sub", claims["sub"], token),
        scopes=frozenset(scopes.split()) if isinstance(scopes, str) else frozenset(),
        on_behalf_of=None if on_behalf_of is None else _check_name("on_behalf_of", on_behalf_of, token),
        expires_at=int(claims["exp"]) + CLOCK_SKEW,
    )


def _check_time(claim: str, value: object, token: str) -> None:
    """Refuse a claim that is no time; PyJWT takes texts, booleans and numbers of any size."""
    if type(value) not in (int, float) or not 0 <= value <= _MAX_TIME:  # type: ignore[operator]
        raise Unauthenticated(Cause.CLAIM_INVALID, f"the token is not valid: {claim} is no time", token)


def _check_name(claim: str, value: object, token: str) -> str:
    """Return a name if it is safe in rows, headers and logs: one printable line of limited length."""
    if isinstance(value, str) and 0 < len(value) <= _MAX_NAME_LENGTH and value.isprintable():
        return value
    text = f"the token is not valid: {claim} is not a name of printable characters"
    raise Unauthenticated(Cause.CLAIM_INVALID, text, token)
