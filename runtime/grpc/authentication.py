"""Who calls is known, and may, before a request is even decoded: a JWT, and the method's scope."""

import time
from typing import Any

import jwt

from runtime.grpc import caller, metadata
from runtime.grpc.caller import Caller
from runtime.grpc.keys import ALGORITHMS, Keys
from runtime.grpc.method import Context, Handler, Interceptor, Method
from runtime.grpc.rpc_error import RpcError

CLOCK_SKEW = 5.0
"""Seconds that the issuer's clock may differ from ours."""
_REMEMBERED = 10_000
"""How many verified tokens are kept, each with its caller."""
_LONGEST_NAME = 255


def authenticate(tokens: "Tokens") -> Interceptor:
    """Return an interceptor that lets a call through only with a valid token that has the method's scope."""

    def authenticating(method: Method, handler: Handler) -> Handler:
        async def authenticated(request: object, context: Context) -> object:
            who = await tokens.caller(_bearer())
            caller.enter(who)
            if method.scope not in who.scopes:
                raise RpcError(
                    "SCOPE_MISSING",
                    f"{method.path} needs the scope {method.scope}",
                    {"scope": method.scope, "method": method.path},
                )
            return await handler(request, context)

        return authenticated

    return authenticating


def _bearer() -> str:
    for key, value in metadata.of_call():
        if key == "authorization":
            scheme, _, token = str(value).partition(" ")
            if scheme.lower() == "bearer" and token:
                return token
    raise RpcError("UNAUTHENTICATED", "the call has no metadata `authorization: Bearer <token>`")


class Tokens:
    """Verifies tokens, and remembers those that it has verified until they expire or the keys change."""

    def __init__(self, keys: Keys, issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._verified: dict[str, Caller] = {}
        self._generation = keys.generation

    async def caller(self, token: str) -> Caller:
        """Return who presents this token.

        Raises:
            Refusal: `UNAUTHENTICATED`, or `KEYS_UNAVAILABLE` while there are no keys to verify it with.
        """
        self._keys.refresh()
        if self._generation != self._keys.generation:
            self._verified.clear()
            self._generation = self._keys.generation
        who = self._verified.get(token)
        if who is None or time.time() >= who.expires_at:
            who = await self._verify(token)
            self._remember(token, who)
        return who

    def _remember(self, token: str, who: Caller) -> None:
        if len(self._verified) >= _REMEMBERED:
            del self._verified[next(iter(self._verified))]  # the oldest
        self._verified[token] = who

    async def _verify(self, token: str) -> Caller:
        try:
            key = await self._keys.find(str(jwt.get_unverified_header(token).get("kid")))
            if key is None:
                raise self._unknown_key()
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
            raise RpcError("UNAUTHENTICATED", f"the token is not valid: {error}") from error
        return _caller(claims)

    def _unknown_key(self) -> RpcError:
        if self._keys.known:
            return RpcError("UNAUTHENTICATED", "the token is not valid: its key (kid) is unknown")
        return RpcError("KEYS_UNAVAILABLE", "the keys of callers' tokens cannot be read", retry_after=1.0)


def _caller(claims: dict[str, Any]) -> Caller:
    scopes = claims.get("scope")
    on_behalf_of = claims.get("on_behalf_of")
    return Caller(
        subject=_name("sub", claims["sub"]),
        scopes=frozenset(scopes.split()) if isinstance(scopes, str) else frozenset(),
        on_behalf_of=None if on_behalf_of is None else _name("on_behalf_of", on_behalf_of),
        expires_at=int(claims["exp"]) + CLOCK_SKEW,
    )


def _name(claim: str, value: object) -> str:
    """Return a name from a token, which goes into rows, headers and logs: one printable line."""
    if isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and value.isprintable():
        return value
    raise RpcError(
        "UNAUTHENTICATED", f"the token is not valid: {claim} is not a name of printable characters"
    )
