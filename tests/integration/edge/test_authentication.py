"""Tokens: what is checked, what is remembered, and where the keys come from."""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic, time
from typing import Any

import jwt
import pytest

from runtime.grpc import authentication, keys
from runtime.grpc.authentication import CLOCK_SKEW, Tokens
from runtime.grpc.caller import Caller
from runtime.grpc.keys import Keys
from runtime.grpc.rpc_error import RpcError
from tests.support.harness.callers import AUDIENCE, ISSUER, Issuer, ed25519, rsa


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "jwks.json")


@pytest.fixture
def tokens(issuer: Issuer) -> Tokens:
    return Tokens(Keys(str(issuer.path)), ISSUER, AUDIENCE)


async def error(tokens: Tokens, token: str) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await tokens.caller(token)
    return caught.value


async def refused_in_the_end(tokens: Tokens, token: str) -> RpcError:
    async with asyncio.timeout(20):
        while True:
            try:
                await tokens.caller(token)
            except RpcError as refused:
                return refused
            await asyncio.sleep(0.01)


async def test_a_token_names_its_caller_its_scopes_and_the_person_acted_for(
    tokens: Tokens, issuer: Issuer
) -> None:
    expiry = int(time()) + 100
    token = issuer.token(sub="shop", scope="a.read  b.write", on_behalf_of="bob", exp=expiry)
    who = await tokens.caller(token)
    assert who == Caller("shop", frozenset({"a.read", "b.write"}), "bob", expiry + CLOCK_SKEW)


async def test_a_token_signed_with_rsa_is_as_good(issuer: Issuer) -> None:
    key = rsa()
    issuer.publish({"r": key})
    tokens = Tokens(Keys(str(issuer.path)), ISSUER, AUDIENCE)
    assert (await tokens.caller(issuer.token(key=key, key_id="r"))).subject == "alice"


async def test_a_token_for_several_audiences_may_name_ours_among_them(tokens: Tokens, issuer: Issuer) -> None:
    assert (await tokens.caller(issuer.token(aud=["other", AUDIENCE]))).subject == "alice"


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"exp": time() - 60}, "expired"),
        ({"nbf": time() + 86_400}, "not yet valid"),
        ({"aud": "other"}, "[Aa]udience"),
        ({"iss": "other"}, "[Ii]ssuer"),
        ({"sub": ""}, "sub"),
        ({"sub": "a\nb"}, "sub"),
        ({"sub": "a\0b"}, "sub"),
        ({"sub": "a" * 256}, "sub"),
        ({"on_behalf_of": "a\r\nb"}, "on_behalf_of"),
        ({"on_behalf_of": {"sub": "bob"}}, "on_behalf_of"),
        ({"without": ("exp",)}, "exp"),
        ({"without": ("sub",)}, "sub"),
        ({"without": ("aud",)}, "aud"),
        ({"without": ("iss",)}, "iss"),
        ({"key_id": "nobodys"}, "kid"),
        ({"key": ed25519()}, "[Ss]ignature"),
        ({"key": rsa()}, "alg"),
    ],
)
async def test_a_token_that_is_not_right_is_refused(
    tokens: Tokens, issuer: Issuer, claims: dict[str, Any], says: str
) -> None:
    refused = await error(tokens, issuer.token(**claims))
    assert refused.reason == "UNAUTHENTICATED"
    assert re.search(says, refused.message), refused.message


def forged(header: dict[str, str], claims: dict[str, Any], secret: bytes) -> str:
    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    signed = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims).encode())}"
    return f"{signed}.{part(hmac.digest(secret, signed.encode(), hashlib.sha256)) if secret else ''}"


@pytest.mark.parametrize("algorithm", ["none", "HS256", "EdDSA"])
async def test_a_public_key_is_no_secret_and_no_signature_is_none(
    tokens: Tokens, issuer: Issuer, algorithm: str
) -> None:
    jwk = json.loads(issuer.path.read_text())["keys"][0]
    public = base64.urlsafe_b64decode(jwk["x"] + "=")
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    header = {"alg": algorithm, "kid": issuer.key_id}
    for secret in (b"", public, jwk["x"].encode()):
        assert (await error(tokens, forged(header, claims, secret))).reason == "UNAUTHENTICATED"


async def test_a_secret_among_the_keys_is_never_used(issuer: Issuer) -> None:
    keys = json.loads(issuer.path.read_text())["keys"]
    secret = base64.urlsafe_b64encode(b"s" * 32).decode()
    issuer.path.write_text(json.dumps({"keys": [*keys, {"kty": "oct", "kid": "s", "k": secret}]}))
    tokens = Tokens(Keys(str(issuer.path)), ISSUER, AUDIENCE)
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    header = {"alg": "HS256", "kid": "s"}
    assert "kid" in (await error(tokens, forged(header, claims, b"s" * 32))).message


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é.é.é", "." * 10_000])
async def test_a_token_that_is_none_is_refused(tokens: Tokens, token: str) -> None:
    assert (await error(tokens, token)).reason == "UNAUTHENTICATED"


async def test_a_caller_without_scopes_has_none(tokens: Tokens, issuer: Issuer) -> None:
    assert (await tokens.caller(issuer.token(without=("scope",)))).scopes == frozenset()
    assert (await tokens.caller(issuer.token(scope=["ordering.read"]))).scopes == frozenset()


# What is remembered


async def test_a_verified_token_is_not_verified_again(
    tokens: Tokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = issuer.token()
    first = await tokens.caller(token)
    monkeypatch.setattr(jwt, "decode", None)
    assert await tokens.caller(token) is first


async def test_a_remembered_token_expires_all_the_same(
    tokens: Tokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "CLOCK_SKEW", 0.0)
    token = issuer.token(exp=int(time()) + 2)
    await tokens.caller(token)
    assert "expired" in (await refused_in_the_end(tokens, token)).message


async def test_no_more_tokens_are_remembered_than_fit(
    tokens: Tokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "_REMEMBERED", 3)
    for number in range(10):
        await tokens.caller(issuer.token(sub=f"caller-{number}"))
    assert len(tokens._verified) == 3


# Where keys come from


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FILE_AGE", "_ADDRESS_AGE", "_PAUSE"):
        monkeypatch.setattr(keys, name, 0.0)


@pytest.mark.usefixtures("impatient")
async def test_a_new_key_in_the_file_is_found_when_a_token_names_it(tokens: Tokens, issuer: Issuer) -> None:
    new = ed25519()
    token = issuer.token(key=new, key_id="key-2")
    assert "kid" in (await error(tokens, token)).message
    issuer.publish({"key-1": issuer.key, "key-2": new})
    assert (await tokens.caller(token)).subject == "alice"
    assert (await tokens.caller(issuer.token())).subject == "alice"


@pytest.mark.usefixtures("impatient")
async def test_a_key_that_is_withdrawn_is_worth_nothing_even_for_remembered_tokens(issuer: Issuer) -> None:
    tokens = Tokens(Keys(str(issuer.path)), ISSUER, AUDIENCE)
    token = issuer.token()
    await tokens.caller(token)
    issuer.publish({"key-2": ed25519()})
    assert "kid" in (await refused_in_the_end(tokens, token)).message


@pytest.mark.usefixtures("impatient")
async def test_a_key_replaced_under_its_old_id_is_noticed(issuer: Issuer) -> None:
    tokens = Tokens(Keys(str(issuer.path)), ISSUER, AUDIENCE)
    old = issuer.token()
    await tokens.caller(old)
    issuer.key = ed25519()
    issuer.publish({"key-1": issuer.key})
    assert "ignature" in (await refused_in_the_end(tokens, old)).message
    assert (await tokens.caller(issuer.token())).subject == "alice"


@pytest.mark.usefixtures("impatient")
async def test_a_file_that_is_broken_for_a_while_leaves_the_keys_as_they_are(issuer: Issuer) -> None:
    tokens = Tokens(Keys(str(issuer.path)), ISSUER, AUDIENCE)
    issuer.path.write_text("{half")
    assert "kid" in (await error(tokens, issuer.token(key_id="key-2"))).message
    assert (await tokens.caller(issuer.token())).subject == "alice"


async def test_unknown_keys_are_looked_up_only_every_few_seconds(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Keys(str(issuer.path))
    source._loaded_at = float("-inf")
    reads = 0
    real = source._read

    def counted() -> bytes:
        nonlocal reads
        reads += 1
        return real()

    monkeypatch.setattr(source, "_read", counted)
    assert await asyncio.gather(*[source.find(f"unknown-{number}") for number in range(100)]) == [None] * 100
    assert await source.find("unknown-again") is None
    assert reads == 1


class Publisher:
    """Serves a JWKS over HTTP; it can be made to hang."""

    def __init__(self, issuer: Issuer) -> None:
        publisher = self
        self.answers = threading.Event()
        self.answers.set()
        self.status = 200

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.answers.wait(10)
                self.send_response(publisher.status)
                self.end_headers()
                self.wfile.write(issuer.path.read_bytes())

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks.json"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def publisher(issuer: Issuer) -> Iterator[Publisher]:
    publisher = Publisher(issuer)
    yield publisher
    publisher.stop()


async def test_keys_at_an_address_are_fetched_with_the_first_token(
    issuer: Issuer, publisher: Publisher
) -> None:
    tokens = Tokens(Keys(publisher.url), ISSUER, AUDIENCE)
    assert (await tokens.caller(issuer.token())).subject == "alice"


@pytest.mark.usefixtures("impatient")
async def test_an_address_that_is_away_at_start_is_a_reason_to_retry_not_a_bad_token(
    issuer: Issuer, publisher: Publisher
) -> None:
    publisher.status = 503
    tokens = Tokens(Keys(publisher.url), ISSUER, AUDIENCE)
    refused = await error(tokens, issuer.token())
    assert (refused.reason, refused.retry_after) == ("KEYS_UNAVAILABLE", 1.0)
    publisher.status = 200
    assert (await tokens.caller(issuer.token())).subject == "alice"


async def test_the_event_loop_never_waits_for_an_address(issuer: Issuer, publisher: Publisher) -> None:
    publisher.answers.clear()
    tokens = Tokens(Keys(publisher.url), ISSUER, AUDIENCE)
    waiting = asyncio.create_task(tokens.caller(issuer.token()))
    longest = 0.0
    for _ in range(20):
        before = monotonic()
        await asyncio.sleep(0.005)
        longest = max(longest, monotonic() - before)
    assert not waiting.done()
    assert longest < 1.0
    publisher.answers.set()
    assert (await waiting).subject == "alice"
