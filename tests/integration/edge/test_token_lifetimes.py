"""Streams end with their caller's token or its key, readiness needs keys, and traces need a caller."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import time
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from diptych.access.v1 import access_pb2
from grpc import StatusCode

from runtime.grpc import jwks, server
from runtime.grpc.caller import Caller
from runtime.grpc.health import NotReady
from runtime.grpc.refused_call_counts import RefusedCall
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.server import Server, Service
from runtime.grpc.stream_lifetimes import StreamLifetimes
from runtime.process.settings import Settings
from tests.support.harness import toy_server
from tests.support.harness.callers import METADATA, Issuer, Key, bearer, ed25519
from tests.support.harness.made_service import made_service
from tests.support.harness.recorded_spans import RecordedSpans, record_spans
from tests.support.harness.rpc_failure import rpc_failure
from tests.support.harness.waiting import until
from tests.support.ledger.stubs import queries, queries_grpc

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
STREAMING = made_service(
    "Lifetimes", rule=access_pb2.Rule(scope="ledger.read", any_object=True), streams=True
)


async def stream(request: Any, context: Any) -> None:
    """Write one response, and no further one."""
    await context.write(b"")
    await asyncio.Event().wait()


class Edge:
    """A running server with a method that streams."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.issuer = Issuer(folder / "jwks.json")
        settings = Settings(jwks=str(self.issuer.path), stop_grace=1.0, jwks_max_age=1_000.0)
        self.keys = server.open_keys(settings)
        monkeypatch.setattr(server, "open_keys", lambda _: self.keys)
        self.refused_calls: list[RefusedCall] = []
        self.server: Server = server.build(
            settings,
            [*toy_server.services(), Service(STREAMING, {"Do": stream})],
            address="127.0.0.1:0",
            probe=toy_server.ready,
            record_refused_call=self._record,
        )
        self.channel: Any = None

    async def _record(self, call: RefusedCall) -> None:
        self.refused_calls.append(call)

    async def probe(self) -> bool:
        """Run the server's probe, as it does each second."""
        return await self.server._probe()

    async def publish(self, keys: dict[str, Key]) -> None:
        """Replace the keys, and run the probe until the server uses them."""
        generation = self.keys.generation
        self.issuer.publish(keys)

        async def is_used() -> bool:
            await self.probe()
            return self.keys.generation > generation

        await until(is_used)

    async def wait_read(self) -> None:
        """Wait until no reading of the keys is under way, which could take over what was written before."""
        await until(lambda: not self.keys.reloading)

    async def open_stream(self, metadata: METADATA) -> Any:
        call = self.channel.unary_stream("/test.Lifetimes/Do")(b"\n\x01c", metadata=metadata)
        await call.read()
        return call

    async def get(self, metadata: Any) -> Any:
        stub: Any = queries_grpc.QueryServiceStub(self.channel)
        return await stub.GetCheque(queries.GetChequeRequest(cheque_id="c-1"), metadata=metadata)


@pytest.fixture
async def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grpc_server: str) -> AsyncIterator[Edge]:
    monkeypatch.setattr(jwks, "_FILE_INTERVAL", 0.0)
    edge = Edge(tmp_path, monkeypatch)
    await edge.server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{edge.server.port}") as edge.channel:
        yield edge
    await edge.server.stop()


async def read_end(call: Any) -> tuple[StatusCode, str, dict[str, str]]:
    """Return the status with which a stream ends, its reason and its metadata."""
    async with asyncio.timeout(10):
        failure = await rpc_failure(call.read())
    return failure.code, failure.reason, dict(failure.metadata)


KEY_WITHDRAWN = (StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED", {"cause": "KEY_WITHDRAWN"})


async def test_a_withdrawn_key_ends_the_streams_of_its_tokens_alone(edge: Edge) -> None:
    other = ed25519()
    await edge.publish({"key-1": edge.issuer.key, "key-2": other})
    lost = [await edge.open_stream(edge.issuer.bearer(sub=name)) for name in ("alice", "bob")]
    stays = await edge.open_stream(edge.issuer.bearer(key=other, key_id="key-2"))
    await edge.publish({"key-2": other})
    assert [await read_end(call) for call in lost] == [KEY_WITHDRAWN] * 2
    assert not stays.done()
    stays.cancel()
    assert edge.refused_calls == []


async def test_a_key_that_is_replaced_under_its_id_ends_streams(edge: Edge) -> None:
    call = await edge.open_stream(edge.issuer.bearer())
    await edge.publish({"key-1": ed25519()})
    assert await read_end(call) == KEY_WITHDRAWN


async def test_a_stream_ends_when_its_token_expires_and_passes_other_timeouts_on(edge: Edge) -> None:
    key, lifetimes = await edge.keys.find("key-1"), StreamLifetimes(edge.keys)
    assert key is not None
    with pytest.raises(RpcError) as caught:
        async with lifetimes.limit(Caller("alice", frozenset(), expires_at=time() + 0.05), key):
            await asyncio.Event().wait()
    assert (caught.value.reason, caught.value.metadata) == ("TOKEN_EXPIRED", {})
    with pytest.raises(TimeoutError, match="another"):
        async with lifetimes.limit(Caller("alice", frozenset(), expires_at=time() + 60), key):
            raise TimeoutError("another")
    assert not lifetimes._open


async def test_expired_keys_end_streams_and_readiness_until_they_can_be_read(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = await edge.open_stream(edge.issuer.bearer())
    assert await edge.probe()
    await edge.wait_read()
    content = edge.issuer.path.read_bytes()
    edge.issuer.path.write_text("{truncated")
    await edge.probe()
    assert (await edge.get(edge.issuer.bearer())).cheque.writer == "alice"
    await edge.wait_read()
    monkeypatch.setattr(jwks, "time", SimpleNamespace(monotonic=lambda: 10.0**9))
    with pytest.raises(NotReady, match="DIPTYCH_JWKS cannot be read"):
        await edge.probe()
    assert await read_end(call) == (StatusCode.UNAVAILABLE, "KEYS_UNAVAILABLE", {})
    failure = await rpc_failure(edge.get(edge.issuer.bearer()))
    assert (failure.code, failure.reason) == (StatusCode.UNAVAILABLE, "KEYS_UNAVAILABLE")
    await edge.wait_read()
    edge.issuer.path.write_bytes(content)
    monkeypatch.setattr(jwks, "time", SimpleNamespace(monotonic=lambda: 10.0**9 + 100))
    assert await edge.probe()
    assert (await edge.get(edge.issuer.bearer())).cheque.writer == "alice"


async def test_a_call_with_two_tokens_is_refused_even_if_both_are_valid(edge: Edge) -> None:
    for metadata in (
        (*edge.issuer.bearer(), *edge.issuer.bearer()),
        (*edge.issuer.bearer(), *edge.issuer.bearer(sub="bob")),
        (*edge.issuer.bearer(), *bearer("x")),
        (*edge.issuer.bearer(), ("authorization", "Basic x")),
    ):
        failure = await rpc_failure(edge.get(metadata))
        assert (failure.reason, failure.metadata) == ("UNAUTHENTICATED", {"cause": "SEVERAL"})
    await edge.server._refused_calls.close()
    assert [(call.caller, call.details["cause"], call.calls) for call in edge.refused_calls] == [
        (None, "SEVERAL", 4)
    ]


@pytest.fixture
def spans() -> Iterator[RecordedSpans]:
    """Sample the traces that callers sample."""
    with record_spans(0.0) as recorded:
        yield recorded


@pytest.fixture
async def traced_edge(spans: RecordedSpans, edge: Edge) -> Edge:
    return edge


async def test_a_caller_without_a_valid_token_neither_joins_nor_samples_a_trace(
    traced_edge: Edge, spans: RecordedSpans
) -> None:
    edge, traceparent = traced_edge, ("traceparent", TRACEPARENT)
    for metadata in ((), edge.issuer.bearer(key=ed25519()), edge.issuer.bearer(exp=1)):
        failure = await rpc_failure(edge.get((*metadata, traceparent)))
        assert failure.code == StatusCode.UNAUTHENTICATED
    await rpc_failure(edge.get((*edge.issuer.bearer(scope=""), traceparent)))  # the caller is known
    await edge.get((*edge.issuer.bearer(), traceparent))
    await until(lambda: len(spans.get_finished_spans()) >= 2)
    found = [(span.attributes or {}).get("error.type") for span in spans.get_finished_spans()]
    assert found == ["SCOPE_MISSING", None]
    await edge.server._refused_calls.close()
    traces = {call.reason: call.details.get("trace_id") for call in edge.refused_calls}
    assert traces == {"UNAUTHENTICATED": None, "SCOPE_MISSING": TRACE}
