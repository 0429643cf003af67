"""Calls of clients whom certificates identify: their caller, their scopes, and the end of their streams."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from diptych.access.v1 import access_pb2
from grpc import StatusCode

from runtime.grpc import server
from runtime.grpc.refused_call_counts import RefusedCall
from runtime.grpc.server import Server, Service
from runtime.process.settings import Settings
from tests.support.harness import toy_server
from tests.support.harness.authority import Authority
from tests.support.harness.callers import Issuer
from tests.support.harness.made_service import made_service
from tests.support.harness.rpc_failure import rpc_failure
from tests.support.ledger.stubs import queries, queries_grpc

STREAMING = made_service(
    "Certified", rule=access_pb2.Rule(scope="ledger.read", any_object=True), streams=True
)
REPORTS, OTHER = "spiffe://diptych/reports", "spiffe://diptych/other"


async def stream(request: Any, context: Any) -> None:
    await context.write(b"")
    await asyncio.Event().wait()


class Edge:
    """A server that asks clients for certificates."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.issuer = Issuer(folder / "jwks.json")
        self._table = folder / "callers.json"
        self.write_table({REPORTS: ["ledger.read"], "CN=legacy,O=Diptych": ["ledger.write"]})
        self.refused_calls: list[RefusedCall] = []
        settings: dict[str, Any] = {
            "jwks": str(self.issuer.path),
            "tls_client_ca": str(self.authority.path),
            "tls_client_certificates": "required",
            "tls_callers": str(self._table),
        }
        self.server: Server = server.build(
            Settings(**settings, **self.authority.settings(), stop_grace=1.0),
            [*toy_server.services(), Service(STREAMING, {"Do": stream})],
            address="127.0.0.1:0",
            probe=toy_server.ready,
            record_refused_call=self._record,
        )
        self._channels: list[grpc.aio.Channel] = []

    async def _record(self, call: RefusedCall) -> None:
        self.refused_calls.append(call)

    def write_table(self, table: dict[str, list[str]]) -> None:
        self._table.write_text(json.dumps(table))

    async def replace_table(self, table: dict[str, list[str]]) -> None:
        self.write_table(table)
        await self.server.watched[1].reload()

    def connect(self, name: str, **issued: Any) -> Any:
        credentials = self.authority.credentials(name, **issued)
        options = (("grpc.use_local_subchannel_pool", 1),)
        channel = grpc.aio.secure_channel(f"127.0.0.1:{self.server.port}", credentials, options)
        self._channels.append(channel)
        return channel

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
        await self.server.stop()


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    edge = Edge(tmp_path)
    await edge.server.start()
    yield edge
    await edge.close()


async def get(channel: Any, metadata: Any = ()) -> str:
    stub: Any = queries_grpc.QueryServiceStub(channel)
    request = queries.GetChequeRequest(cheque_id="c-1")
    return str((await stub.GetCheque(request, metadata=metadata, timeout=10)).cheque.writer)


async def open_stream(channel: Any) -> Any:
    call = channel.unary_stream("/test.Certified/Do")(b"\n\x01c")
    await call.read()
    return call


async def read_end(call: Any) -> tuple[StatusCode, str, str]:
    async with asyncio.timeout(10):
        failure = await rpc_failure(call.read())
    return failure.code, failure.reason, failure.metadata["cause"]


async def test_a_certificate_identifies_the_caller_of_a_call_without_a_token(edge: Edge) -> None:
    reports, legacy = edge.connect("reports", spiffe_id=REPORTS), edge.connect("legacy")
    assert await get(reports) == REPORTS
    failure = await rpc_failure(get(legacy))
    assert (failure.reason, failure.metadata["scope"]) == ("SCOPE_MISSING", "ledger.read")
    assert [call.caller for call in edge.refused_calls] == ["CN=legacy,O=Diptych"]


async def test_a_token_says_who_the_caller_is_also_if_it_is_bad(edge: Edge) -> None:
    reports = edge.connect("reports", spiffe_id=REPORTS)
    assert await get(reports, edge.issuer.bearer(sub="bob")) == "bob"
    for bad in (edge.issuer.bearer(aud="elsewhere"), (("authorization", "Basic abc"),)):
        assert (await rpc_failure(get(reports, bad))).code is StatusCode.UNAUTHENTICATED


async def test_a_certificate_that_is_not_in_the_table_is_refused_and_recorded(edge: Edge) -> None:
    failure = await rpc_failure(get(edge.connect("other", spiffe_id=OTHER)))
    assert (failure.code, failure.reason) == (StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    details = {"cause": "CERTIFICATE_UNKNOWN", "certificate": OTHER}
    assert dict(failure.metadata) == details
    await edge.server._refused_calls._write()  # as a second later
    (recorded,) = edge.refused_calls
    assert recorded.caller is None
    assert details.items() <= dict(recorded.details).items()


async def test_an_entry_that_is_taken_from_the_table_ends_its_streams_alone(edge: Edge) -> None:
    await edge.replace_table({REPORTS: ["ledger.read"], OTHER: ["ledger.read"]})
    lost, stays = edge.connect("reports", spiffe_id=REPORTS), edge.connect("other", spiffe_id=OTHER)
    ended, running = await open_stream(lost), await open_stream(stays)
    await edge.replace_table({OTHER: ["ledger.read"]})
    assert await read_end(ended) == (StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED", "CERTIFICATE_WITHDRAWN")
    assert (await rpc_failure(get(lost))).metadata["cause"] == "CERTIFICATE_UNKNOWN"
    assert not running.done()
    assert await get(stays) == OTHER
    running.cancel()


async def test_a_stream_ends_with_its_certificate_and_later_calls_are_refused(edge: Edge) -> None:
    channel = edge.connect("reports", spiffe_id=REPORTS, lifetime=timedelta(seconds=2))
    call = await open_stream(channel)
    assert await read_end(call) == (StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED", "CERTIFICATE_EXPIRED")
    assert (await rpc_failure(get(channel))).metadata["cause"] == "CERTIFICATE_EXPIRED"
