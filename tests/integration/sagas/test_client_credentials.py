"""The process manager's token by client credentials, from a token endpoint that answers in many ways."""

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from time import time
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import jwt
import pytest
from diptych.ordering.v1 import query_service_pb2

from process_manager.dispatch import client_credentials, token_expiry
from process_manager.dispatch.client_credentials import ClientCredentials, parse_answer
from process_manager.dispatch.step_client import OutcomeUnknown, StepClient
from process_manager.dispatch.token_expiry import TokenExpiry
from runtime import http_fetch
from runtime.process.settings import Settings
from runtime.process.start_error import InvalidSetting
from tests.support.harness.waiting import until

CLIENT, SECRET = "manager:1", "s e+cr%t"
INVALID = 401, {"error": "invalid_client", "error_description": "no"}


def token_for(seconds: float, name: str = "t") -> str:
    return jwt.encode({"sub": name, "iat": time(), "exp": time() + seconds}, "x" * 32)


class Endpoint:
    """A token endpoint: what it was asked, and what it answers a client with the right secret."""

    def __init__(self) -> None:
        self.forms: list[dict[str, list[str]]] = []
        self.answer: tuple[int, Any] = 200, {}
        self.hangs, self.closing = False, Event()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                endpoint.handle(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def give(self, token: str, **fields: Any) -> None:
        self.answer = 200, {"access_token": token, "token_type": "Bearer", **fields}

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"])).decode()
        assert handler.headers["content-type"] == "application/x-www-form-urlencoded"
        self.forms.append(parse_qs(body))
        if self.hangs:
            self.closing.wait()
            return
        scheme, _, pair = handler.headers["authorization"].partition(" ")
        client, _, secret = b64decode(pair).decode().partition(":")
        right = (scheme, unquote_plus(client), unquote_plus(secret)) == ("Basic", CLIENT, SECRET)
        status, answer = self.answer if right else INVALID
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("content-length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """The log lines: level, message and error."""
    lines: list[tuple[str, str, str]] = []

    def log(level: str) -> Any:
        return lambda message, **fields: lines.append((level, message, fields.get("error", "")))

    levels = SimpleNamespace(**{level: log(level) for level in ("info", "warning", "error")})
    monkeypatch.setattr(client_credentials, "log", levels)
    monkeypatch.setattr(token_expiry, "log", levels)
    return lines


@pytest.fixture
def settings(tmp_path: Path, endpoint: Endpoint) -> Settings:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    return Settings(
        token_endpoint=endpoint.url,
        token_client_id=CLIENT,
        token_client_secret=str(tmp_path / "secret"),
        token_client_scope="ordering.read fulfilment.record",
        token_client_audience="diptych",
    )


def write_secret(settings: Settings, secret: str | None) -> None:
    """Write the file with the secret; None removes it."""
    if secret is None:
        Path(settings.token_client_secret).unlink()
    else:
        Path(settings.token_client_secret).write_text(secret)


@asynccontextmanager
async def running(source: ClientCredentials) -> AsyncIterator[None]:
    await source.prepare()
    task = asyncio.create_task(source.run())
    yield
    task.cancel()
    await asyncio.wait({task})


async def test_tokens_are_fetched_ahead_of_their_expiry(
    settings: Settings, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_credentials, "FIRST_PAUSE", 0.01)
    endpoint.give("first", expires_in=0.3)
    source = ClientCredentials(settings)
    with pytest.raises(OSError, match="no token was fetched yet"):
        source.read()
    async with running(source):
        assert source.read() == "first"
        endpoint.give("second", expires_in=1_000)
        await until(lambda: source.read() == "second")
        await asyncio.sleep(0)
        assert len(endpoint.forms) == 2
    assert endpoint.forms[0] == {
        "grant_type": ["client_credentials"],
        "scope": ["ordering.read fulfilment.record"],
        "audience": ["diptych"],
    }


async def test_a_token_that_servers_refuse_is_replaced(
    settings: Settings, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_credentials, "LONGEST_SLEEP", 0.01)
    endpoint.give("old", expires_in=1_000)
    source = ClientCredentials(settings)
    async with running(source):
        endpoint.give("new", expires_in=1_000)
        source.note_rejection()
        await asyncio.sleep(0.05)
        assert source.read() == "old", "a token of this minute is no reason to ask again"
        monkeypatch.setattr(client_credentials, "LONGEST_PAUSE", 0.0)
        source.note_rejection()
        await until(lambda: source.read() == "new")


async def test_a_refused_secret_is_reported_until_the_file_has_the_right_one(
    settings: Settings, endpoint: Endpoint, lines: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_credentials, "FIRST_PAUSE", 0.01)
    endpoint.give(token_for(3_600), expires_in=3_600)
    write_secret(settings, "wrong")
    client = StepClient(settings)
    async with running(client.tokens):  # type: ignore[arg-type]
        await until(lambda: len(endpoint.forms) > 2)
        error = "HTTP Error 401: Unauthorized, invalid_client"
        assert lines[0] == ("warning", "Token of the process manager not fetched", error)
        with pytest.raises(OSError, match=f"no token: {error}"):
            await client.read_token()
        write_secret(settings, None)
        await until(lambda: "DIPTYCH_TOKEN_CLIENT_SECRET: cannot read the file" in lines[-1][2])
        write_secret(settings, SECRET)
        await until(lambda: lines[-1][0] == "info")
        assert await client.read_token() == endpoint.answer[1]["access_token"]
    assert all("wrong" not in "".join(line) and SECRET not in "".join(line) for line in lines)


@pytest.mark.parametrize("failure", ["hangs", "fails", "is away"])
async def test_the_present_token_stays_in_use_while_the_endpoint_does_not_answer(
    settings: Settings,
    endpoint: Endpoint,
    lines: list[tuple[str, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    failure: str,
) -> None:
    monkeypatch.setattr(http_fetch, "TIMEOUT", 0.2)
    token = token_for(100)
    endpoint.give(token)
    source = ClientCredentials(settings)
    await source.renew()
    if failure == "hangs":
        endpoint.hangs = True
    elif failure == "fails":
        endpoint.answer = 503, b"<html>"
    else:
        endpoint.close()
    await source.renew()
    expected = {"hangs": "no complete answer within", "fails": "HTTP Error 503", "is away": "refused"}
    assert lines[-1][0] == "warning"
    assert expected[failure] in lines[-1][2]
    assert source.read() == token
    monkeypatch.setattr(token_expiry, "time", lambda: time() + 95)
    TokenExpiry(source).check()
    assert lines[-1] == ("warning", "Token of the process manager expires soon", source.problem)


async def test_repeated_failures_are_spaced(
    settings: Settings, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    log = SimpleNamespace(warning=lambda _, retry_after, **__: pauses.append(retry_after))
    monkeypatch.setattr(client_credentials, "log", log)
    endpoint.answer = 500, b""
    source = ClientCredentials(settings)
    for _ in range(9):
        await source.renew()
    assert all(earlier < later for earlier, later in pairwise(pauses[:6]))
    assert 0.8 <= pauses[0] <= 1.2
    assert max(pauses) <= 72


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "Expecting value"),
        (b"[]", "no JSON object"),
        (b'{"token_type": "Bearer"}', "no access_token"),
        (b'{"token_type": "Bearer", "access_token": 3}', "no access_token"),
        (b'{"token_type": "Bearer", "access_token": "a\\nb"}', "no access_token"),
        (b'{"token_type": "mac", "access_token": "a"}', "other than Bearer"),
        (b'{"token_type": "Bearer", "access_token": "a", "expires_in": 0}', "has expired"),
        (json.dumps({"token_type": "bearer", "access_token": token_for(-5)}).encode(), "has expired"),
    ],
)
def test_an_answer_that_is_no_token_is_refused(answer: bytes, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        parse_answer(answer)


def test_the_lifetime_is_that_of_the_answer_or_of_the_token() -> None:
    def lifetime(token: str, **fields: Any) -> float:
        return parse_answer(json.dumps({"access_token": token, "token_type": "bearer", **fields}).encode())[1]

    assert lifetime("opaque", expires_in="90") == 90
    assert lifetime(token_for(3_600), expires_in=90) == 90
    assert lifetime(token_for(3_600)) == pytest.approx(3_600, abs=10)
    for unusable in ({}, {"expires_in": None}, {"expires_in": "soon"}, {"expires_in": 1e999}):
        assert lifetime("opaque", **unusable) == client_credentials.UNKNOWN_LIFETIME


def test_the_client_and_tls_are_required(settings: Settings) -> None:
    for name in ("token_client_id", "token_client_secret"):
        with pytest.raises(InvalidSetting, match="DIPTYCH_TOKEN_ENDPOINT: also needs"):
            ClientCredentials(settings.model_copy(update={name: ""}))
    elsewhere = settings.model_copy(update={"token_endpoint": "http://issuer.example/token"})
    with pytest.raises(InvalidSetting, match="DIPTYCH_TOKEN_ENDPOINT: is a URL of another host without TLS"):
        ClientCredentials(elsewhere)
    ClientCredentials(elsewhere.model_copy(update={"jwks_allow_http": True}))


async def test_a_step_without_a_token_has_an_unknown_outcome(settings: Settings) -> None:
    client = StepClient(settings)
    assert query_service_pb2.DESCRIPTOR
    step: Any = SimpleNamespace(method="/diptych.ordering.v1.QueryService/GetOrder", request=b"")
    with pytest.raises(OutcomeUnknown, match="DIPTYCH_TOKEN_ENDPOINT: no token: no token was fetched yet"):
        await client.call(step, None, within=1)
    await client.close()
