"""Authentication and authorisation of calls, by the JWT in their metadata or the certificate of their client.

How it works:

1. A call has the metadata `authorization: Bearer <token>`, once. The token must be signed with a key of the
   JWKS (`jwks`) and the only algorithm for that type of key. It must have our issuer and audience, a subject,
   and times of issue and expiry that are not too far apart.
   A call without this metadata is identified by its client's certificate, if there is a table of such callers
   (`certificate_callers`). A call with it is judged by it alone: a certificate does not help a bad token.
2. `identify` verifies it before telemetry takes over the trace context of the call, and keeps a failure.
   `admit` raises the failure within the interceptors that record and contain errors.
3. The token's scopes must satisfy the rule of the method (`access`).
4. All checks precede the decoding of the request, so unauthenticated bytes are never parsed.
5. Verified tokens are cached until they expire. A change of the keys clears the cache, so that tokens of a
   withdrawn key become invalid.
6. The caller is available to everything in the call through `caller.current()`.
7. A stream ends when its caller's token or certificate expires, or the key of the token or the entry of the
   certificate is withdrawn (`stream_lifetimes`).
"""

import time
from collections.abc import Awaitable
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, NamedTuple

import jwt

from runtime.grpc import caller, metadata
from runtime.grpc.caller import Caller
from runtime.grpc.certificate_callers import CertificateCallers
from runtime.grpc.jwks import KeySet, keys_unavailable_error
from runtime.grpc.method import Context, Handler, Interceptor, Method
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.stream_lifetimes import Proof, StreamLifetimes
from runtime.grpc.unauthenticated import Cause, Unauthenticated

CLOCK_SKEW = 5.0
"""Seconds by which the issuer's clock may differ from ours."""
_TYPES = {"jwt", "at+jwt"}
"""The types (`typ`) of tokens that are accepted; others, for instance ID tokens, are not made for calls."""
_REQUIRED = ["exp", "iat", "iss", "aud", "sub"]
_CACHE_SIZE = 10_000
"""Maximum number of verified tokens in the cache."""
_MAX_NAME_LENGTH = 255
_MAX_TIME = 253_402_300_799
"""The end of the year 9999, in seconds since 1970."""


class Identity(NamedTuple):
    """A verified caller, and the key of its token, or the table's entry of its certificate."""

    caller: Caller
    proof: Proof


_IDENTITY: ContextVar[Identity | Exception] = ContextVar("identity")
"""The identity of the current call's sender, or why there is none."""


def identify(tokens: "TokenVerifier", certificates: CertificateCallers | None = None) -> Interceptor:
    """Return an interceptor that identifies the caller of a call; the call goes on to `admit` in any case.

    Args:
        tokens: verifies tokens.
        certificates: identifies the callers of calls without tokens; None for nobody.
    """

    def wrap(_method: Method, handler: Handler) -> Handler:
        def identify_caller(request: object, context: Context) -> Awaitable[object]:
            try:
                authorization = _find_authorization()
                if authorization is None and certificates is not None:
                    certified = certificates.identify(context)
                    identity: Identity | None = Identity(certified.caller, certified.entry)
                else:
                    token = _read_bearer_token(authorization)
                    identity = tokens.find_cached(token)
            except Exception as error:
                _IDENTITY.set(error)
            else:
                if identity is None:
                    return verify_first(token, request, context)
                _set_identity(identity)
            return handler(request, context)

        async def verify_first(token: str, request: object, context: Context) -> object:
            try:
                _set_identity(await tokens.identify(token))
            except Exception as error:
                _IDENTITY.set(error)
            return await handler(request, context)

        return identify_caller

    return wrap


def _set_identity(identity: Identity) -> None:
    _IDENTITY.set(identity)
    caller.set_current(identity.caller)


def admit(streams: StreamLifetimes) -> Interceptor:
    """Return an interceptor that admits calls with a valid token whose scopes satisfy the method's rule."""

    def wrap(method: Method, handler: Handler) -> Handler:
        def admit_call(request: object, context: Context) -> Awaitable[object]:
            identity = _IDENTITY.get()
            if isinstance(identity, Exception):
                raise identity
            method.rule.check(identity.caller, method.path)
            return stream(identity, request, context) if method.streams else handler(request, context)

        async def stream(identity: Identity, request: object, context: Context) -> object:
            async with streams.limit(identity.caller, identity.proof):
                return await handler(request, context)

        return admit_call

    return wrap


def _find_authorization() -> str | None:
    found = None
    for key, value in metadata.current():
        if key == "authorization":
            if found is not None:
                raise Unauthenticated(
                    Cause.SEVERAL, "the call has the metadata `authorization` more than once"
                )
            found = str(value)
    return found


def _read_bearer_token(authorization: str | None) -> str:
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer" and token:
            return token
    raise Unauthenticated(Cause.MISSING, "the call has no metadata `authorization: Bearer <token>`")


class TokenVerifier:
    """Verifies access tokens, with a cache of verified ones.

    Args:
        keys: verify the signatures.
        issuer: the `iss` of every token.
        audience: one of the `aud` of every token.
        max_lifetime: between `iat` and `exp`; None for no limit.
    """

    def __init__(
        self, keys: KeySet, issuer: str, audience: str, max_lifetime: timedelta | None = None
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._max_lifetime = max_lifetime
        self._cache: dict[str, Identity] = {}
        self._generation = keys.generation
        """The generation of the keys that verified the tokens in the cache."""

    async def identify(self, token: str) -> Identity:
        """Return the caller that a token identifies, and the key of the token.

        Raises:
            RpcError: `UNAUTHENTICATED`, or `KEYS_UNAVAILABLE` while no keys could be read.
        """
        identity = self.find_cached(token)
        if identity is None:
            identity = await self._decode(token)
            self._add_to_cache(token, identity)
        return identity

    def find_cached(self, token: str) -> Identity | None:
        """Return the identity of a token that was verified before, with keys that have not changed since."""
        self._keys.refresh()
        if self._generation != self._keys.generation:
            self._cache.clear()
            self._generation = self._keys.generation
        identity = self._cache.get(token)
        return None if identity is None or time.time() >= identity.caller.expires_at else identity

    def _add_to_cache(self, token: str, identity: Identity) -> None:
        if self._generation != self._keys.generation:
            return  # the keys have changed meanwhile, perhaps after this one was found
        if len(self._cache) >= _CACHE_SIZE:
            del self._cache[next(iter(self._cache))]  # dicts keep their order: this is the oldest entry
        self._cache[token] = identity

    async def _decode(self, token: str) -> Identity:
        try:
            header = jwt.get_unverified_header(token)
            _check_header(header, token)
            key = await self._keys.find(str(header.get("kid")))
            if key is None:
                raise self._unknown_key_error(token)
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=CLOCK_SKEW,
                options={"require": _REQUIRED},
            )
        except jwt.InvalidTokenError as error:
            raise Unauthenticated.of(error, token) from error
        except (ArithmeticError, ValueError, TypeError, RecursionError) as error:
            # PyJWT calculates with what the claims hold, and parses JSON of any depth.
            raise Unauthenticated(Cause.MALFORMED, "the token cannot be read", token) from error
        verified_caller = _caller_from_claims(claims, token)
        self._check_lifetime(claims, token)
        return Identity(verified_caller, key)

    def _check_lifetime(self, claims: dict[str, Any], token: str) -> None:
        if (
            self._max_lifetime is not None
            and claims["exp"] - claims["iat"] > self._max_lifetime.total_seconds()
        ):
            text = f"the token is not valid: more than {self._max_lifetime} lie between iat and exp"
            raise Unauthenticated(Cause.LIFETIME_TOO_LONG, text, token)

    def _unknown_key_error(self, token: str) -> RpcError:
        if self._keys.loaded and not self._keys.reloading:
            text = "the token is not valid: its key (kid) is unknown"
            return Unauthenticated(Cause.UNKNOWN_KEY, text, token)
        return keys_unavailable_error()


def _check_header(header: dict[str, Any], token: str) -> None:
    """Refuse a token of another type. PyJWT refuses extensions that a receiver must understand (`crit`)."""
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        text = "the token is not valid: its type (typ) is neither JWT nor at+jwt"
        raise Unauthenticated(Cause.WRONG_TYPE, text, token)


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
