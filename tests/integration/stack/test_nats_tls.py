"""NATS by TLS: whom a client trusts, its own certificate, renewed files, and no way back to the clear."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from devstack.servers import Nats
from runtime.jetstream.connection import Connection, connect
from runtime.process.start_error import InvalidSetting
from tests.support.harness.authority import Authority
from tests.support.harness.waiting import until


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def run_nats(authority: Authority, **issued: Any) -> AsyncIterator[Nats]:
    """Run a NATS that wants certificates of clients."""
    certificate, key = authority.write("nats", **issued)
    nats = Nats(authority.folder / "nats-data", tls=(certificate, key, authority.path), verifies_clients=True)
    await nats.start()
    try:
        yield nats
    finally:
        await nats.stop()


@asynccontextmanager
async def connecting(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Connection, list[str]]]:
    """Begin to connect; yield the connection and its errors."""
    errors: list[str] = []
    connection = await connect(url, "test")
    monkeypatch.setattr(connection._failures, "report", lambda error: errors.append(repr(error)))
    yield connection, errors
    await connection.close()


def url_of(nats: Nats, authority: Authority, name: str = "client") -> str:
    certificate, key = authority.write(name)
    return f"tls://127.0.0.1:{nats.port}?ca={authority.path}&cert={certificate}&key={key}"


async def test_a_client_with_a_certificate_connects_and_follows_renewed_files(authority: Authority) -> None:
    async with run_nats(authority) as nats:
        connection = await connect(url_of(nats, authority), "test")
        await asyncio.wait_for(connection.wait_until_connected(), 20)
        context = connection.client.ssl_context
        assert (await connection.js.account_info()).streams == 0
        await nats.stop()
        authority.write("client")
        await nats.start()
        await until(lambda: connection.sessions == 2)
        assert connection.client.ssl_context is not context
        (authority.folder / "client.key").write_bytes(b"")
        await nats.stop()
        await nats.start()
        await until(lambda: connection.sessions == 3)
        await connection.close()


@pytest.mark.parametrize("fault", ["name", "authority", "own", "expired"])
async def test_a_server_or_client_that_is_not_trusted_is_not_connected(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    (tmp_path / "foreign").mkdir()
    foreign = Authority(tmp_path / "foreign")
    faulty: dict[str, dict[str, Any]] = {
        "name": {"hosts": ("elsewhere.example",)},
        "expired": {"lifetime": timedelta(seconds=-1)},
    }
    issued = faulty.get(fault, {})
    async with run_nats(authority, **issued) as nats:
        url = {
            "authority": url_of(nats, foreign),
            "own": f"tls://127.0.0.1:{nats.port}?ca={authority.path}",
        }.get(fault, url_of(nats, authority))
        async with connecting(url, monkeypatch) as (connection, errors):
            await until(lambda: bool(errors))
            assert not connection.connected
            assert connection.sessions == 0


async def test_a_server_that_offers_no_tls_gets_nothing(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be somebody in between who says so; the password would go in the clear."""
    nats = Nats(tmp_path / "plain")
    await nats.start()
    url = f"tls://user:secret@127.0.0.1:{nats.port}?ca={authority.path}"
    async with connecting(url, monkeypatch) as (connection, errors):
        await until(lambda: any("does not offer it" in error for error in errors))
        assert not connection.connected
    await nats.stop()


async def test_files_that_cannot_be_used_are_an_invalid_setting(authority: Authority) -> None:
    with pytest.raises(InvalidSetting, match=r"DIPTYCH_NATS_URL: cannot use ca, cert or key: .*No such file"):
        await connect(f"tls://127.0.0.1:1?ca={authority.folder}/absent", "test")
