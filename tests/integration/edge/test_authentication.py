"""Access tokens: their verification, the cache of verified tokens, and the source of the keys."""

import asyncio
import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from time import monotonic, time
from typing import Any

import jwt
import pytest

from runtime import http_fetch
from runtime.grpc import authentication, jwks
from runtime.grpc.authentication import CLOCK_SKEW, TokenVerifier
from runtime.grpc.caller import Caller
from runtime.grpc.jwks import KeySet
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.unauthenticated import Unauthenticated
from tests.support.harness.callers import AUDIENCE, ISSUER, Issuer, ed25519, rsa
from tests.support.harness.key_publisher import Publisher


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "jwks.json")


@pytest.fixture
def tokens(issuer: Issuer) -> TokenVerifier:
    return TokenVerifier(KeySet(str(issuer.path)), ISSUER, AUDIENCE, timedelta(hours=1))


async def verify_error(tokens: TokenVerifier, token: str) -> RpcError:
    """Return the error that verifying a token raises."""
    with pytest.raises(RpcError) as caught:
        await tokens.identify(token)
    return caught.value


async def wait_for_error(tokens: TokenVerifier, token: str) -> RpcError:
    """Verify a token until that raises an error, and return the error."""
    async with asyncio.timeout(20):
        while True:
            try:
                await tokens.identify(token)
            except RpcError as error:
                return error
            await asyncio.sleep(0.01)


async def test_a_token_names_its_caller_scopes_and_the_person_acted_for(
    tokens: TokenVerifier, issuer: Issuer
) -> None:
    expiry = int(time()) + 100
    token = issuer.token(sub="shop", scope="a.read  b.write", on_behalf_of="bob", exp=expiry)
    caller = (await tokens.identify(token)).caller
    assert caller == Caller("shop", frozenset({"a.read", "b.write"}), "bob", expiry + CLOCK_SKEW)


async def test_a_token_signed_with_rsa_is_accepted(issuer: Issuer) -> None:
    key = rsa()
    issuer.publish({"r": key})
    tokens = TokenVerifier(KeySet(str(issuer.path)), ISSUER, AUDIENCE)
    assert (await tokens.identify(issuer.token(key=key, key_id="r"))).caller.subject == "alice"


async def test_an_extension_that_is_not_understood_is_refused(tokens: TokenVerifier, issuer: Issuer) -> None:
    error = await verify_error(tokens, issuer.token(header={"crit": ["exp"]}))
    assert error.metadata == {"cause": "CLAIM_INVALID"}


@pytest.mark.parametrize(
    "kind", [None, "JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "Application/JWT"]
)
async def test_an_access_token_may_name_its_type(
    tokens: TokenVerifier, issuer: Issuer, kind: str | None
) -> None:
    token = issuer.token(header={"typ": kind})
    assert ("typ" in jwt.get_unverified_header(token)) == bool(kind)
    assert (await tokens.identify(token)).caller.subject == "alice"


async def test_a_token_may_live_as_long_as_the_limit_and_without_one_for_ever(
    tokens: TokenVerifier, issuer: Issuer
) -> None:
    now = int(time())
    assert (await tokens.identify(issuer.token(iat=now, exp=now + 3_600))).caller.subject == "alice"
    assert (await verify_error(tokens, issuer.token(iat=now, exp=now + 3_601))).metadata
    unlimited = TokenVerifier(KeySet(str(issuer.path)), ISSUER, AUDIENCE, None)
    assert (await unlimited.identify(issuer.token(exp=now + 86_400 * 365))).caller.subject == "alice"


async def test_a_token_may_have_further_audiences(tokens: TokenVerifier, issuer: Issuer) -> None:
    assert (await tokens.identify(issuer.token(aud=["other", AUDIENCE]))).caller.subject == "alice"


@pytest.mark.parametrize(
    ("claims", "message", "cause"),
    [
        ({"exp": time() - 60}, "expired", "EXPIRED"),
        ({"nbf": time() + 86_400}, "not yet valid", "NOT_YET_VALID"),
        ({"aud": "other"}, "[Aa]udience", "WRONG_AUDIENCE"),
        ({"iss": "other"}, "[Ii]ssuer", "WRONG_ISSUER"),
        ({"sub": ""}, "sub", "CLAIM_INVALID"),
        ({"sub": "a\nb"}, "sub", "CLAIM_INVALID"),
        ({"sub": "a\0b"}, "sub", "CLAIM_INVALID"),
        ({"sub": "a\x1b[2J"}, "sub", "CLAIM_INVALID"),
        ({"sub": "a\u202eb"}, "sub", "CLAIM_INVALID"),
        ({"sub": "a\ud800"}, "sub", "CLAIM_INVALID"),
        ({"sub": "a" * 256}, "sub", "CLAIM_INVALID"),
        ({"sub": "a" * 10_000}, "sub", "CLAIM_INVALID"),
        ({"on_behalf_of": "a\r\nb"}, "on_behalf_of", "CLAIM_INVALID"),
        ({"on_behalf_of": {"sub": "bob"}}, "on_behalf_of", "CLAIM_INVALID"),
        ({"iat": time() + 86_400}, "not yet valid", "NOT_YET_VALID"),
        ({"iat": time() - 3_600}, "1:00:00", "LIFETIME_TOO_LONG"),
        ({"exp": time() + 86_400 * 365}, "1:00:00", "LIFETIME_TOO_LONG"),
        ({"header": {"typ": "logout+jwt"}}, "typ", "WRONG_TYPE"),
        ({"header": {"typ": "application/secevent+jwt"}}, "typ", "WRONG_TYPE"),
        ({"header": {"typ": "dpop+jwt"}}, "typ", "WRONG_TYPE"),
        ({"header": {"typ": "application/"}}, "typ", "WRONG_TYPE"),
        ({"header": {"typ": 1}}, "typ", "WRONG_TYPE"),
        ({"without": ("exp",)}, "exp", "CLAIM_MISSING"),
        ({"without": ("iat",)}, "iat", "CLAIM_MISSING"),
        ({"without": ("sub",)}, "sub", "CLAIM_MISSING"),
        ({"without": ("aud",)}, "aud", "CLAIM_MISSING"),
        ({"without": ("iss",)}, "iss", "CLAIM_MISSING"),
        ({"key_id": "unknown"}, "kid", "UNKNOWN_KEY"),
        ({"key": ed25519()}, "[Ss]ignature", "FORGED"),
        ({"key": rsa()}, "alg", "FORGED"),
    ],
)
async def test_an_invalid_token_is_rejected_with_its_cause(
    tokens: TokenVerifier, issuer: Issuer, claims: dict[str, Any], message: str, cause: str
) -> None:
    error = await verify_error(tokens, issuer.token(**claims))
    assert isinstance(error, Unauthenticated)
    assert (error.reason, error.metadata) == ("UNAUTHENTICATED", {"cause": cause})
    assert re.search(message, error.message), error.message
    assert error.claimed_key == claims.get("key_id", issuer.key_id)
    assert error.claimed_issuer == ("" if "iss" in claims.get("without", ()) else claims.get("iss", ISSUER))


@pytest.mark.parametrize(
    ("claims", "key", "claimed_issuer"),
    [
        ({"iss": "a\x1b[2J\r\n\0b"}, "key-1", r"a\u001b[2J\r\n\u0000b"),
        ({"iss": "é" * 100, "key_id": "k" * 100}, "k" * 64, "é" * 64),
    ],
)
async def test_the_claims_of_an_invalid_token_are_cut_and_escaped(
    tokens: TokenVerifier, issuer: Issuer, claims: dict[str, Any], key: str, claimed_issuer: str
) -> None:
    error = await verify_error(tokens, issuer.token(**claims))
    assert isinstance(error, Unauthenticated)
    assert (error.claimed_key, error.claimed_issuer) == (key, claimed_issuer)


ODD_TIMES = [
    10**400,
    -(10**400),
    -1,
    float("inf"),
    float("nan"),
    1e300,
    True,
    "4102444800",
    "x",
    "",
    [],
    {},
    None,
]


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", ODD_TIMES, ids=lambda value: repr(value)[:12])
async def test_a_time_that_is_none_is_rejected(
    tokens: TokenVerifier, issuer: Issuer, claim: str, value: Any
) -> None:
    error = await verify_error(tokens, sign_claims(issuer, {claim: value}))
    assert error.reason == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    "claims", ['{"a":' * 3_000 + "1" + "}" * 3_000, "[" * 3_000, "[]", "1", '{"exp":1e999}']
)
async def test_claims_that_cannot_be_read_are_rejected(
    tokens: TokenVerifier, issuer: Issuer, claims: str
) -> None:
    assert (await verify_error(tokens, sign_text(issuer, claims))).reason == "UNAUTHENTICATED"


def sign_claims(issuer: Issuer, claims: dict[str, Any]) -> str:
    """Return a valid token with other claims, which may be no JSON; PyJWT would refuse to sign them."""
    valid = jwt.decode(issuer.token(), options={"verify_signature": False})
    return sign_text(issuer, json.dumps(valid | claims))


def sign_text(issuer: Issuer, claims: str) -> str:
    return jwt.api_jws.encode(claims.encode(), issuer.key, algorithm="EdDSA", headers={"kid": issuer.key_id})


def forge_token(header: dict[str, str], claims: dict[str, Any], secret: bytes) -> str:
    def encode(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    signed = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
    return f"{signed}.{encode(hmac.digest(secret, signed.encode(), hashlib.sha256)) if secret else ''}"


@pytest.mark.parametrize("algorithm", ["none", "HS256", "EdDSA"])
async def test_neither_a_missing_signature_nor_a_public_key_as_secret_is_valid(
    tokens: TokenVerifier, issuer: Issuer, algorithm: str
) -> None:
    jwk = json.loads(issuer.path.read_text())["keys"][0]
    public = base64.urlsafe_b64decode(jwk["x"] + "=")
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    header = {"alg": algorithm, "kid": issuer.key_id}
    for secret in (b"", public, jwk["x"].encode()):
        assert (await verify_error(tokens, forge_token(header, claims, secret))).reason == "UNAUTHENTICATED"


async def test_a_symmetric_key_in_the_key_set_is_never_used(issuer: Issuer) -> None:
    keys = json.loads(issuer.path.read_text())["keys"]
    secret = base64.urlsafe_b64encode(b"s" * 32).decode()
    issuer.path.write_text(json.dumps({"keys": [*keys, {"kty": "oct", "kid": "s", "k": secret}]}))
    tokens = TokenVerifier(KeySet(str(issuer.path)), ISSUER, AUDIENCE)
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    header = {"alg": "HS256", "kid": "s"}
    assert "kid" in (await verify_error(tokens, forge_token(header, claims, b"s" * 32))).message


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é.é.é", "." * 10_000])
async def test_a_malformed_token_is_rejected(tokens: TokenVerifier, token: str) -> None:
    assert (await verify_error(tokens, token)).metadata == {"cause": "MALFORMED"}


async def test_a_caller_without_scopes_has_none(tokens: TokenVerifier, issuer: Issuer) -> None:
    assert (await tokens.identify(issuer.token(without=("scope",)))).caller.scopes == frozenset()
    assert (await tokens.identify(issuer.token(scope=["ledger.read"]))).caller.scopes == frozenset()


# The cache of verified tokens


async def test_a_verified_token_is_cached(
    tokens: TokenVerifier, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = issuer.token()
    first = await tokens.identify(token)
    monkeypatch.setattr(jwt, "decode", None)
    assert await tokens.identify(token) is first


async def test_a_cached_token_expires(
    tokens: TokenVerifier, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "CLOCK_SKEW", 0.0)
    token = issuer.token(exp=int(time()) + 2)
    await tokens.identify(token)
    assert "expired" in (await wait_for_error(tokens, token)).message


async def test_the_cache_has_a_maximum_size(
    tokens: TokenVerifier, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "_CACHE_SIZE", 3)
    for number in range(10):
        await tokens.identify(issuer.token(sub=f"caller-{number}"))
    assert len(tokens._cache) == 3


# The source of the keys


@pytest.fixture
def always_reloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FILE_INTERVAL", "_URL_INTERVAL", "_UNKNOWN_KEY_INTERVAL"):
        monkeypatch.setattr(jwks, name, 0.0)


@pytest.mark.usefixtures("always_reloaded")
async def test_a_new_key_in_the_file_is_found_when_a_token_names_it(
    tokens: TokenVerifier, issuer: Issuer
) -> None:
    new_key = ed25519()
    token = issuer.token(key=new_key, key_id="key-2")
    assert "kid" in (await verify_error(tokens, token)).message
    issuer.publish({"key-1": issuer.key, "key-2": new_key})
    assert (await tokens.identify(token)).caller.subject == "alice"
    assert (await tokens.identify(issuer.token())).caller.subject == "alice"


@pytest.mark.usefixtures("always_reloaded")
async def test_a_withdrawn_key_invalidates_even_cached_tokens(issuer: Issuer) -> None:
    tokens = TokenVerifier(KeySet(str(issuer.path)), ISSUER, AUDIENCE)
    token = issuer.token()
    await tokens.identify(token)
    issuer.publish({"key-2": ed25519()})
    assert "kid" in (await wait_for_error(tokens, token)).message


@pytest.mark.usefixtures("always_reloaded")
async def test_a_key_that_is_replaced_under_its_id_is_noticed(issuer: Issuer) -> None:
    tokens = TokenVerifier(KeySet(str(issuer.path)), ISSUER, AUDIENCE)
    old_token = issuer.token()
    await tokens.identify(old_token)
    issuer.key = ed25519()
    issuer.publish({"key-1": issuer.key})
    assert "ignature" in (await wait_for_error(tokens, old_token)).message
    assert (await tokens.identify(issuer.token())).caller.subject == "alice"


@pytest.mark.usefixtures("always_reloaded")
async def test_a_temporarily_broken_file_does_not_change_the_keys(issuer: Issuer) -> None:
    tokens = TokenVerifier(KeySet(str(issuer.path)), ISSUER, AUDIENCE)
    issuer.path.write_text("{truncated")
    assert "kid" in (await verify_error(tokens, issuer.token(key_id="key-2"))).message
    assert (await tokens.identify(issuer.token())).caller.subject == "alice"


async def test_unknown_keys_cause_a_reload_only_every_few_seconds(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_set = KeySet(str(issuer.path))
    key_set._tried_at = float("-inf")
    reads = 0
    read = key_set._read

    async def count_and_read() -> bytes:
        nonlocal reads
        reads += 1
        return await read()

    monkeypatch.setattr(key_set, "_read", count_and_read)
    assert await asyncio.gather(*[key_set.find(f"unknown-{number}") for number in range(100)]) == [None] * 100
    assert await key_set.find("unknown-again") is None
    assert reads == 1


@pytest.fixture
def publisher(issuer: Issuer) -> Iterator[Publisher]:
    publisher = Publisher(issuer)
    yield publisher
    publisher.stop()


async def test_keys_at_a_url_are_fetched_with_the_first_token(issuer: Issuer, publisher: Publisher) -> None:
    tokens = TokenVerifier(KeySet(publisher.url), ISSUER, AUDIENCE)
    assert (await tokens.identify(issuer.token())).caller.subject == "alice"


@pytest.mark.usefixtures("always_reloaded")
async def test_while_the_url_is_unavailable_at_start_callers_may_retry(
    issuer: Issuer, publisher: Publisher
) -> None:
    publisher.status = 503
    tokens = TokenVerifier(KeySet(publisher.url), ISSUER, AUDIENCE)
    error = await verify_error(tokens, issuer.token())
    assert (error.reason, error.retry_after) == ("KEYS_UNAVAILABLE", 1.0)
    publisher.status = 200
    assert (await tokens.identify(issuer.token())).caller.subject == "alice"


async def test_while_the_url_hangs_known_keys_work_and_unknown_ones_wait_briefly(
    issuer: Issuer, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "_MAX_WAIT", 0.1)
    monkeypatch.setattr(jwks, "_UNKNOWN_KEY_INTERVAL", 0.0)
    tokens = TokenVerifier(KeySet(publisher.url), ISSUER, AUDIENCE)
    await tokens.identify(issuer.token())
    publisher.responding.clear()
    began = monotonic()
    error = await verify_error(tokens, issuer.token(key_id="key-2"))
    assert (error.reason, error.retry_after) == ("KEYS_UNAVAILABLE", 1.0)
    assert (await tokens.identify(issuer.token(sub="shop"))).caller.subject == "shop"
    assert monotonic() - began < http_fetch.TIMEOUT


async def test_the_event_loop_never_waits_for_the_url(issuer: Issuer, publisher: Publisher) -> None:
    publisher.responding.clear()
    tokens = TokenVerifier(KeySet(publisher.url), ISSUER, AUDIENCE)
    verification = asyncio.create_task(tokens.identify(issuer.token()))
    longest = 0.0
    for _ in range(20):
        before = monotonic()
        await asyncio.sleep(0.005)
        longest = max(longest, monotonic() - before)
    assert not verification.done()
    assert longest < 1.0
    publisher.responding.set()
    assert (await verification).caller.subject == "alice"
