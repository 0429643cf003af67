"""Servers with TLS: whom clients trust, whom servers let in, and certificates that change under load."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import diptych_client.aio
import grpc
import pytest
from diptych_client import Rejection
from grpc_health.v1 import health_pb2, health_pb2_grpc

from devstack.tcp_ports import free_port
from runtime.grpc import server
from runtime.grpc.server import Server
from runtime.process import watched_files
from runtime.process.lifecycle import Lifecycle
from runtime.process.settings import Settings
from runtime.process.start_error import StartError
from tests.support.harness import toy_server
from tests.support.harness.authority import Authority
from tests.support.harness.callers import Issuer
from tests.support.harness.waiting import until
from tests.support.ledger.stubs import queries, queries_grpc

OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)


class Edge:
    """A server with TLS, and callers."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.authority = Authority(folder)
        self.issuer = Issuer(folder / "jwks.json")
        chosen = self.authority.settings() | settings
        if "tls_client_certificates" in settings:
            chosen["tls_client_ca"] = str(self.authority.path)
        self.server: Server = server.build(
            Settings(jwks=str(self.issuer.path), stop_grace=5.0, **chosen),
            toy_server.services(),
            address="127.0.0.1:0",
            probe=toy_server.ready,
        )

    @property
    def files(self) -> Any:
        tls: Any = self.server._tls
        return tls.files

    async def get(self, channel: grpc.aio.Channel) -> str:
        stub: Any = queries_grpc.QueryServiceStub(channel)
        request = queries.GetChequeRequest(cheque_id="c-1")
        response = await stub.GetCheque(request, metadata=self.issuer.bearer(), timeout=10)
        return str(response.cheque.writer)

    async def call(self, credentials: grpc.ChannelCredentials | None, host: str = "127.0.0.1") -> str:
        """Call by a new connection; return the caller's name, or the status of the error."""
        target, options = f"{host}:{self.server.port}", (OWN_CONNECTION,)
        opened = (
            grpc.aio.secure_channel(target, credentials, options)
            if credentials
            else grpc.aio.insecure_channel(target, options)
        )
        async with opened as channel:
            try:
                return await self.get(channel)
            except grpc.aio.AioRpcError as error:
                return error.code().name


@asynccontextmanager
async def run(folder: Path, **settings: Any) -> AsyncIterator[Edge]:
    edge = Edge(folder, **settings)
    await edge.server.start()
    try:
        yield edge
    finally:
        await edge.server.stop()


async def test_clients_call_by_tls_alone_and_only_who_trusts_the_certificate(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    foreign = Authority(tmp_path / "foreign")
    async with run(tmp_path) as edge:
        assert await edge.call(edge.authority.credentials()) == "alice"
        assert await edge.call(edge.authority.credentials("client")) == "alice"
        assert await edge.call(foreign.credentials()) == "UNAVAILABLE"
        assert await edge.call(None) == "UNAVAILABLE"


async def test_a_certificate_for_another_name_is_not_trusted(tmp_path: Path) -> None:
    async with run(tmp_path) as edge:
        edge.authority.write("server", ("elsewhere.example",))
        await edge.files.reload()
        await until(lambda: _is_presented(edge))
        assert await edge.call(edge.authority.credentials()) == "UNAVAILABLE"


async def test_a_required_certificate_must_be_of_the_authority(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    foreign = Authority(tmp_path / "foreign")
    async with run(tmp_path, tls_client_certificates="required") as edge:
        ca = edge.authority.path.read_bytes()
        certificate, key = (path.read_bytes() for path in foreign.write("client"))
        assert await edge.call(edge.authority.credentials("client")) == "alice"
        assert await edge.call(edge.authority.credentials()) == "UNAVAILABLE"
        assert await edge.call(grpc.ssl_channel_credentials(ca, key, certificate)) == "UNAVAILABLE"


async def test_an_optional_certificate_may_be_missing_but_not_foreign(
    tmp_path: Path, grpc_server: str
) -> None:
    if grpc_server == "grpc.aio":
        with pytest.raises(StartError, match="knows none and required"):
            Edge(tmp_path, tls_client_certificates="optional")
        return
    (tmp_path / "foreign").mkdir()
    certificate, key = (path.read_bytes() for path in Authority(tmp_path / "foreign").write("client"))
    async with run(tmp_path, tls_client_certificates="optional") as edge:
        ca = edge.authority.path.read_bytes()
        assert await edge.call(edge.authority.credentials("client")) == "alice"
        assert await edge.call(edge.authority.credentials()) == "alice"
        assert await edge.call(grpc.ssl_channel_credentials(ca, key, certificate)) == "UNAVAILABLE"


async def _is_presented(edge: Edge) -> bool:
    """Return whether new connections get the certificate in the file."""
    pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", edge.server.port))
    return bool(pem == edge.files.content.own.certificate.decode())


async def test_certificates_change_under_load_without_a_failed_call(tmp_path: Path) -> None:
    """Also the authority changes: whoever trusts the new one alone can call, too."""
    async with run(tmp_path) as edge:
        (tmp_path / "next").mkdir()
        following = Authority(tmp_path / "next")
        both = edge.authority.path.read_bytes() + following.path.read_bytes()
        connection = diptych_client.aio.connect(
            f"127.0.0.1:{edge.server.port}",
            token=edge.issuer.token(),
            tls=grpc.ssl_channel_credentials(both),
        )
        method = queries_grpc.QueryServiceStub(connection.channel).GetCheque
        answered, ended, failures = 0, asyncio.Event(), []

        async def call() -> None:
            nonlocal answered
            while not ended.is_set():
                try:
                    await connection.query(method, queries.GetChequeRequest(cheque_id="c-1"))
                    answered += 1
                except Rejection as error:
                    failures.append(error)

        calling = [asyncio.create_task(call()) for _ in range(8)]
        for authority in (edge.authority, following, edge.authority, following):
            for name, path in zip(("server.pem", "server.key"), authority.write("server"), strict=True):
                (tmp_path / name).write_bytes(path.read_bytes())
            await edge.files.reload()
            await until(lambda: _is_presented(edge))
            expected = answered + 50
            await until(lambda expected=expected: answered >= expected)  # type: ignore[misc]
        ended.set()
        await asyncio.gather(*calling)
        await connection.close()
        assert failures == []
        assert await edge.call(following.credentials()) == "alice"
        assert await edge.call(edge.authority.credentials()) == "UNAVAILABLE"


async def test_files_that_cannot_be_used_leave_the_certificate(tmp_path: Path) -> None:
    async with run(tmp_path) as edge:
        before = edge.files.content
        (tmp_path / "server.key").write_bytes(edge.authority.write("other")[1].read_bytes())
        for _ in range(2):
            await edge.files.reload()
        assert edge.files.error == "the key is not that of the certificate"
        assert edge.files.content is before
        assert await edge.call(edge.authority.credentials()) == "alice"


async def test_probes_are_answered_without_tls(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    edge = Edge(tmp_path)
    edge.server._probe_address = address
    await edge.server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        assert await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    await edge.server.stop()


async def test_a_process_reads_its_certificate_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_files, "CHECK_INTERVAL", 0.01)
    edge, lifecycle = Edge(tmp_path), Lifecycle(Settings(stop_grace=1.0))
    serving = asyncio.create_task(edge.server.serve(lifecycle))
    before = edge.files.content
    edge.authority.write("server")
    await until(lambda: edge.files.content is not before)
    lifecycle.stop()
    await serving


async def test_a_server_without_tls_listens_on_this_machine_alone(tmp_path: Path) -> None:
    settings = Settings(jwks=str(Issuer(tmp_path / "jwks.json").path))
    build = partial(server.build, settings, address="0.0.0.0:0", probe=toy_server.ready)
    with pytest.raises(StartError, match="without TLS"):
        build(toy_server.services())
    build()  # answers health checks alone
