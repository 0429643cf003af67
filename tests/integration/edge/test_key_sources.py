"""The source of the keys: how long keys are used that cannot be read again, and the bounds of a fetch."""

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from runtime import http_fetch
from runtime.grpc import jwks
from runtime.grpc.jwks import KeySet
from runtime.process.start_error import InvalidSetting
from tests.support.harness.callers import Issuer
from tests.support.harness.certificates import write_certificate
from tests.support.harness.waiting import until


@pytest.fixture(scope="module", autouse=True)
def grpc_server() -> str:
    """Replace the fixture that runs tests on both servers."""
    return "grpc.aio"


class Clock:
    """A clock for the keys that tests advance."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(jwks, "time", clock)
    return clock


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """The level, message and error of each line that is logged about the keys."""
    lines: list[tuple[str, str, str]] = []

    class Log:
        def __getattr__(self, level: str) -> Callable[..., None]:
            return lambda message, **fields: lines.append((level, message, fields.get("error", "")))

    monkeypatch.setattr(jwks, "log", Log())
    return lines


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "jwks.json")


async def reload(keys: KeySet) -> bool:
    """Refresh the keys, wait for the reload, and return whether key-1 is in use."""
    keys.refresh()
    await until(lambda: not keys.reloading)
    return "key-1" in keys._keys


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"keys": [1]}'])
async def test_keys_that_cannot_be_read_again_are_used_for_a_time_and_then_expire(
    issuer: Issuer, clock: Clock, lines: list[tuple[str, str, str]], content: str | None
) -> None:
    keys = KeySet(str(issuer.path), max_age=60.0)
    good = issuer.path.read_text()
    issuer.path.unlink() if content is None else issuer.path.write_text(content)
    for clock.now in (1_010.0, 1_030.0, 1_060.0):
        assert await reload(keys)
    clock.now = 1_061.0
    assert not await reload(keys)
    assert (keys.loaded, keys.generation) == (False, 2)
    clock.now = 1_070.0
    issuer.path.write_text(good)
    assert await reload(keys)
    (failed, expired, *_, recovered) = lines
    assert failed[:2] == ("warning", "Reading of JWKS failed")
    assert "the keys that were read last expire at 2" in failed[2]
    assert expired == ("error", "Keys of JWKS expired", "not read for 60 s")
    assert recovered[:2] == ("info", "Recovered")


async def test_keys_that_are_read_again_do_not_expire(issuer: Issuer, clock: Clock) -> None:
    keys = KeySet(str(issuer.path), max_age=60.0)
    for clock.now in (1_050.0, 1_100.0, 1_150.0):
        assert await reload(keys)
    assert keys.generation == 1


@pytest.mark.parametrize("left", [[], [{"kty": "oct", "kid": "s", "k": "AA"}]])
async def test_an_emptied_set_withdraws_all_keys_at_once(
    issuer: Issuer, clock: Clock, lines: list[tuple[str, str, str]], left: list[Any]
) -> None:
    keys = KeySet(str(issuer.path), max_age=60.0)
    issuer.path.write_text(json.dumps({"keys": left}))
    clock.now += 10
    assert not await reload(keys)
    assert keys.loaded
    assert ("warning", "JWKS has no usable key; all tokens are refused", "") in lines
    assert ("Keys of JWKS left out" in {line[1] for line in lines}) == bool(left)


async def test_a_set_with_an_id_twice_leaves_the_last_keys_in_use(issuer: Issuer, clock: Clock) -> None:
    keys = KeySet(str(issuer.path), max_age=60.0)
    document = json.loads(issuer.path.read_text())
    issuer.path.write_text(json.dumps({"keys": [*document["keys"], {"kid": "n"}, {"kid": "n"}]}))
    clock.now += 10
    assert await reload(keys)
    with pytest.raises(InvalidSetting, match="several keys have the id n"):
        KeySet(str(issuer.path))


async def test_a_file_without_a_usable_key_prevents_the_start(issuer: Issuer) -> None:
    issuer.path.write_text(json.dumps({"keys": [{"kid": "e", "kty": "RSA", "use": "enc"}]}))
    with pytest.raises(InvalidSetting, match=r"no usable key; e: is not for signatures \(use\)"):
        KeySet(str(issuer.path))


@pytest.mark.parametrize("host", ["issuer.example", "10.0.0.1", "localhost.example", "[fd00::1]", "0.0.0.0"])
def test_a_url_of_another_host_needs_tls(host: str) -> None:
    with pytest.raises(InvalidSetting, match=r"DIPTYCH_JWKS: .*: use https, or set DIPTYCH_JWKS_ALLOW"):
        KeySet(f"http://{host}/jwks.json")
    KeySet(f"http://{host}/jwks.json", allow_http=True)
    KeySet(f"https://{host}/jwks.json")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3:8080", "[::1]:80"])
def test_a_url_of_this_machine_needs_none(host: str) -> None:
    KeySet(f"http://{host}/jwks.json")


class Peer:
    """Accepts connections, and runs a function with each."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._serve = serve
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._serve_one, args=[connection], daemon=True).start()
        except OSError:
            return

    def _serve_one(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._serve(connection)
        except OSError:  # the client has left
            return

    def stop(self) -> None:
        self._socket.close()


@pytest.fixture
def start_peer() -> Iterator[Callable[[Callable[[socket.socket], None]], int]]:
    peers: list[Peer] = []

    def start(serve: Callable[[socket.socket], None]) -> int:
        peers.append(Peer(serve))
        return int(peers[-1].port)

    yield start
    for peer in peers:
        peer.stop()


OK = b"HTTP/1.1 200 OK\r\n"


def trickle(start: bytes) -> Callable[[socket.socket], None]:
    """Return a peer that sends a byte now and then, so that no single read is late."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(b"x")
            threading.Event().wait(0.02)

    return serve


@pytest.mark.parametrize("start", [b"", OK, OK + b"x: ", OK + b"content-length: 100000\r\n\r\n"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_fetch_ends_in_time_whatever_part_is_slow_and_leaves_no_thread(
    start_peer: Any, monkeypatch: pytest.MonkeyPatch, start: bytes, scheme: str
) -> None:
    monkeypatch.setattr(http_fetch, "TIMEOUT", 0.2)
    first = b"\x16\x03\x03\x40\x00" if scheme == "https" else start  # the start of a record of TLS
    port = start_peer(trickle(first))
    with pytest.raises(TimeoutError, match="no complete answer within"):
        await http_fetch.fetch(f"{scheme}://127.0.0.1:{port}/")
    await until(lambda: not any(thread.name == http_fetch.THREAD for thread in threading.enumerate()))


async def test_a_name_that_is_not_resolved_in_time_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_fetch, "TIMEOUT", 0.1)
    resolved = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: resolved.wait(10) and [])
    began = monotonic()
    with pytest.raises(TimeoutError):
        await http_fetch.fetch("https://issuer.example/")
    assert monotonic() - began < 5
    resolved.set()


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.1:{port}/keys", "https://127.0.0.1:{port}/keys", "file:///etc/passwd", "/keys"],
)
async def test_redirects_are_not_followed(start_peer: Any, location: str) -> None:
    requests: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        requests.append(connection.recv(1_000))
        target = location.format(port=connection.getsockname()[1]).encode()
        connection.sendall(b"HTTP/1.1 302 Found\r\nlocation: " + target + b"\r\ncontent-length: 0\r\n\r\n")

    with pytest.raises(OSError, match="302"):
        await http_fetch.fetch(f"http://127.0.0.1:{start_peer(serve)}/")
    assert len(requests) == 1


async def test_an_answer_has_a_maximum_size(start_peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1_000)
        connection.sendall(OK + b"content-length: 101\r\n\r\n" + b" " * 101)

    port = start_peer(serve)
    assert len(await http_fetch.fetch(f"http://127.0.0.1:{port}/")) == 101
    monkeypatch.setattr(http_fetch, "MAX_BYTES", 100)
    with pytest.raises(ValueError, match="more than 100 bytes"):
        await http_fetch.fetch(f"http://127.0.0.1:{port}/")


async def test_a_fetch_that_is_cancelled_leaves_no_thread(start_peer: Any) -> None:
    fetching = asyncio.create_task(http_fetch.fetch(f"http://127.0.0.1:{start_peer(trickle(OK))}/"))
    await until(lambda: any(thread.name == http_fetch.THREAD for thread in threading.enumerate()))
    fetching.cancel()
    await until(lambda: not any(thread.name == http_fetch.THREAD for thread in threading.enumerate()))


async def test_keys_are_fetched_over_tls_from_a_host_that_is_trusted(
    start_peer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = write_certificate(tmp_path / "issuer.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1_000)
            secured.sendall(OK + b"transfer-encoding: chunked\r\n\r\n4\r\nkeys\r\n0\r\n\r\n")

    port = start_peer(serve)
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        await http_fetch.fetch(f"https://localhost:{port}/")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert await http_fetch.fetch(f"https://localhost:{port}/") == b"keys"
    with pytest.raises(OSError, match=r"not valid for '127\.0\.0\.1'"):
        await http_fetch.fetch(f"https://127.0.0.1:{port}/")


async def test_a_proxy_is_used_for_https_alone(start_peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        requests.append(connection.recv(1_000).partition(b"\r\n")[0])
        connection.sendall(b"HTTP/1.1 403 No\r\n\r\n")

    port = start_peer(serve)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OSError, match="403"):
        await http_fetch.fetch("https://issuer.example/keys")
    with pytest.raises(OSError):
        await http_fetch.fetch("http://127.0.0.1:1/keys")
    assert [request.partition(b" HTTP")[0] for request in requests] == [b"CONNECT issuer.example:443"]
