"""The interceptors of every gRPC call: errors, authentication, validation, the record of refused calls."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time, time
from typing import Any

import grpc
import pytest
from diptych.access.v1 import access_pb2
from diptych_client import service_config
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from runtime.grpc import late_messages, server
from runtime.grpc.listener import MAX_RECEIVED_BYTES
from runtime.grpc.refused_call_counts import RefusedCall
from runtime.grpc.rpc_error import STATUS, RpcError
from runtime.grpc.server import Server, Service
from runtime.grpc.validation import MAX_REQUEST_BYTES
from runtime.process.settings import Settings
from runtime.process.start_error import StartError
from tests.support.harness import toy_server
from tests.support.harness.callers import Issuer, bearer
from tests.support.harness.made_service import made_service
from tests.support.harness.raw_http2 import (
    END_HEADERS,
    HEADERS,
    encode_frame,
    encode_headers,
    grpc_headers,
    raw_connection,
)
from tests.support.harness.rpc_failure import reason_of, rpc_failure
from tests.support.harness.waiting import until
from tests.support.ledger.stubs import commands, queries, queries_grpc

PATH = "/acme.ledger.v1.QueryService/GetCheque"
COMMANDS = commands.DESCRIPTOR.services_by_name["CommandService"]


@dataclass
class Edge:
    """A running server, a channel to it, and its refused calls."""

    server: Server
    channel: grpc.aio.Channel
    issuer: Issuer
    refused_calls: list[RefusedCall] = field(default_factory=list)

    @property
    def queries(self) -> Any:
        return queries_grpc.QueryServiceStub(self.channel)

    def unary(self, path: str) -> Any:
        return self.channel.unary_unary(path)

    def streaming(self, path: str) -> Any:
        return self.channel.unary_stream(path)

    def get(self, cheque_id: str = "c-1", metadata: Any = None) -> Any:
        request = queries.GetChequeRequest(cheque_id=cheque_id)
        metadata = self.issuer.bearer() if metadata is None else metadata
        return self.queries.GetCheque(request, metadata=metadata)


@asynccontextmanager
async def run_server(
    issuer: Issuer, services: Any = None, record_refused_call: Any = None, **settings: Any
) -> AsyncIterator[Edge]:
    refused_calls: list[RefusedCall] = []

    async def record(call: RefusedCall) -> None:
        refused_calls.append(call)

    edge = server.build(
        Settings(jwks=str(issuer.path), stop_grace=1.0, **settings),
        toy_server.services() if services is None else services,
        address="127.0.0.1:0",
        probe=toy_server.ready,
        record_refused_call=record_refused_call or record,
    )
    await edge.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{edge.port}") as channel:
            yield Edge(edge, channel, issuer, refused_calls)
    finally:
        await edge.stop()


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("keys") / "jwks.json")


@pytest.fixture(scope="module")
async def module_edge(issuer: Issuer, grpc_server: str) -> AsyncIterator[Edge]:
    async with run_server(issuer) as edge:
        yield edge


@pytest.fixture
def edge(module_edge: Edge) -> Edge:
    module_edge.refused_calls.clear()
    return module_edge


async def test_a_valid_call_returns_a_message(edge: Edge) -> None:
    response = await edge.get("c-7")
    assert (response.cheque.cheque_id, response.cheque.writer) == ("c-7", "alice")


async def test_a_handler_may_return_bytes(edge: Edge) -> None:
    request = queries.ListChequesRequest(account_id="a-1")
    response = await edge.queries.ListCheques(request, metadata=edge.issuer.bearer())
    assert response.next_page_token == "more"


async def test_the_person_that_a_caller_acts_for_reaches_the_handler(edge: Edge) -> None:
    response = await edge.get(
        metadata=edge.issuer.bearer(sub="shop", on_behalf_of="bob", scope="ledger.read act.on-behalf")
    )
    assert (response.cheque.writer, response.cheque.account_id) == ("shop", "bob")


async def test_concurrent_callers_are_not_mixed_up(edge: Edge) -> None:
    names = [f"caller-{number}" for number in range(50)]
    calls = [edge.get("slow-20", edge.issuer.bearer(sub=name)) for name in names]
    assert [(await call).cheque.writer for call in calls] == names


async def test_a_broken_rule_of_a_context_has_its_reason(edge: Edge) -> None:
    failure = await rpc_failure(edge.get("rule-1"))
    assert (failure.code, failure.reason) == (StatusCode.NOT_FOUND, "CHEQUE_NOT_FOUND")
    assert (failure.domain, failure.metadata) == ("ledger.diptych", {"chequeId": "rule-1"})


async def test_a_retryable_error_has_a_retry_delay(edge: Edge) -> None:
    failure = await rpc_failure(edge.get("later"))
    assert (failure.code, failure.reason, failure.retry_after) == (
        StatusCode.UNAVAILABLE,
        "VIEW_BEHIND",
        0.25,
    )


async def test_a_bug_in_a_handler_leaks_nothing(edge: Edge) -> None:
    failure = await rpc_failure(edge.get("bug"))
    assert (failure.code, failure.reason, failure.message) == (
        StatusCode.INTERNAL,
        "INTERNAL",
        "internal error",
    )
    assert failure.metadata == {}
    assert edge.refused_calls == []


@pytest.mark.parametrize("reason", STATUS)
async def test_every_reason_of_the_infrastructure_reaches_the_caller(issuer: Issuer, reason: str) -> None:
    async def fail(request: Any, context: Any) -> Any:
        raise RpcError(reason, "no", {"fact": "1"})

    services = [toy_server.service(fail)]
    async with run_server(issuer, services) as edge:
        failure = await rpc_failure(edge.get())
    assert (failure.code, failure.reason, failure.metadata) == (STATUS[reason], reason, {"fact": "1"})
    assert failure.domain == "diptych"


async def test_trailing_metadata_of_a_handler_survives_its_error(issuer: Issuer) -> None:
    async def fail(request: Any, context: Any) -> Any:
        context.set_trailing_metadata((("diptych-staleness-ms", "12"),))
        raise RpcError("VIEW_REBUILDING", "no")

    services = [toy_server.service(fail)]
    async with run_server(issuer, services) as edge:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await edge.get()
    trailers: dict[str, Any] = dict(error.value.trailing_metadata() or ())
    assert trailers["diptych-staleness-ms"] == "12"
    assert "grpc-status-details-bin" in trailers


async def test_the_longest_error_still_arrives(issuer: Issuer) -> None:
    long = "\U0001f980" * 2000

    async def fail(request: Any, context: Any) -> Any:
        raise RpcError(
            "REQUEST_INVALID", long, {"fact": long}, violations={f"{n}{long}": long for n in range(99)}
        )

    services = [toy_server.service(fail)]
    async with run_server(issuer, services) as edge:
        failure = await rpc_failure(edge.get())
    assert failure.reason == "REQUEST_INVALID"
    assert failure.message.startswith("\U0001f980")
    assert failure.metadata["fact"].endswith("…")
    assert 3 <= len(failure.violations) <= 10


@pytest.mark.parametrize("path", ["/acme.ledger.v1.QueryService/Drop", "/no.Such/Thing"])
@pytest.mark.parametrize("streams", [False, True])
async def test_an_unknown_method_is_an_error_with_a_reason(edge: Edge, path: str, streams: bool) -> None:
    if streams:
        failure = await rpc_failure(anext(aiter(edge.streaming(path)(b""))))
    else:
        failure = await rpc_failure(edge.unary(path)(b""))
    assert (failure.code, failure.reason) == (StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN")


# Validation


async def test_bytes_that_are_not_a_message_are_rejected(edge: Edge) -> None:
    failure = await rpc_failure(edge.unary(PATH)(b"\xff\xff", metadata=edge.issuer.bearer()))
    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID")


async def test_the_error_of_an_invalid_request_names_all_invalid_fields(edge: Edge) -> None:
    request = queries.ListChequesRequest(account_id="not valid", page_size=101)
    failure = await rpc_failure(edge.queries.ListCheques(request, metadata=edge.issuer.bearer()))
    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID")
    assert set(failure.violations) == {"account_id", "page_size"}
    (call,) = edge.refused_calls
    assert call.caller == "alice"
    assert set(call.details) == {"account_id", "page_size"}


async def test_a_rule_about_a_whole_request_has_no_field(edge: Edge) -> None:
    failure = await rpc_failure(
        edge.queries.ListCheques(queries.ListChequesRequest(), metadata=edge.issuer.bearer())
    )
    assert failure.violations == {"": "name an account, a state, or a time"}


@pytest.mark.parametrize("size", [MAX_REQUEST_BYTES + 1, MAX_RECEIVED_BYTES - 100])
async def test_a_request_that_is_too_large_is_refused_with_a_reason(edge: Edge, size: int) -> None:
    failure = await rpc_failure(edge.get("c" * size))
    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "REQUEST_TOO_LARGE")


async def test_a_request_far_too_large_is_refused_before_it_is_read(edge: Edge, grpc_server: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await edge.get("c" * MAX_RECEIVED_BYTES)
    if grpc_server == "grpc.aio":
        assert caught.value.code() == StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in (caught.value.details() or "")
    else:
        assert reason_of(caught.value) == "REQUEST_TOO_LARGE"


async def test_a_call_with_the_service_config_sends_no_request_far_too_large(edge: Edge) -> None:
    config = service_config()
    config["methodConfig"][0]["name"] = [{}]
    options = [("grpc.service_config", json.dumps(config))]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{edge.server.port}", options) as channel:
        get = queries_grpc.QueryServiceStub(channel).GetCheque
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            request = queries.GetChequeRequest(cheque_id="c" * MAX_RECEIVED_BYTES)
            await get(request, metadata=edge.issuer.bearer())
    assert "CLIENT: Sent message larger" in (caught.value.details() or "")


async def test_the_error_of_a_large_request_names_its_first_violation(issuer: Issuer) -> None:
    async def unused(request: Any, context: Any) -> Any:
        raise AssertionError

    request = commands.DistributeRequest(shares=[commands.Share()] * 100_000).SerializeToString()
    async with run_server(
        issuer, [Service(COMMANDS, dict.fromkeys(COMMANDS.methods_by_name, unused))]
    ) as edge:
        start = process_time()
        call = edge.unary("/acme.ledger.v1.CommandService/Distribute")
        failure = await rpc_failure(call(request, metadata=issuer.bearer()))
    assert len(failure.violations) == 1
    assert process_time() - start < 3, "otherwise one caller blocks all others"


async def test_a_nul_in_a_string_is_rejected(edge: Edge) -> None:
    request = queries.GetChequeRequest(cheque_id="c-1", at_least_as_fresh="a\0b")
    failure = await rpc_failure(edge.queries.GetCheque(request, metadata=edge.issuer.bearer()))
    assert failure.violations == {"at_least_as_fresh": "holds U+0000"}


# Authentication


async def test_a_call_without_a_token_is_unauthenticated_and_recorded(issuer: Issuer) -> None:
    async with run_server(issuer) as edge:
        failure = await rpc_failure(edge.get(metadata=()))
        assert (failure.code, failure.reason) == (StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        await until(lambda: bool(edge.refused_calls))
    (call,) = edge.refused_calls
    assert (call.method, call.reason, call.caller) == (PATH, "UNAUTHENTICATED", None)
    assert (call.peer, call.details["cause"], call.calls) == ("ipv4:127.0.0.1", "MISSING", 1)


async def test_unauthenticated_calls_that_are_alike_share_a_record(issuer: Issuer) -> None:
    expired = issuer.bearer(exp=time() - 60)
    async with run_server(issuer) as edge:
        calls = [edge.get(metadata=metadata) for metadata in [(), expired] * 5]
        assert {(await rpc_failure(call)).reason for call in calls} == {"UNAUTHENTICATED"}
    found = {(call.details["cause"], call.details.get("key"), call.calls) for call in edge.refused_calls}
    assert found == {("MISSING", None, 5), ("EXPIRED", issuer.key_id, 5)}, "recorded when the server stops"


async def test_a_caller_without_the_scope_is_denied_and_recorded(edge: Edge) -> None:
    failure = await rpc_failure(edge.get(metadata=edge.issuer.bearer(scope="ledger.write other")))
    assert (failure.code, failure.reason) == (StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
    assert failure.metadata == {"scope": "ledger.read", "method": PATH}
    (call,) = edge.refused_calls
    assert (call.reason, call.caller) == ("SCOPE_MISSING", "alice")


async def test_a_call_of_an_unknown_method_is_recorded_without_the_name_that_anybody_can_make_up(
    issuer: Issuer,
) -> None:
    async with run_server(issuer) as edge:
        for name in ("Get\\x1b", "Got"):
            failure = await rpc_failure(edge.unary(f"/acme.ledger.v1.QueryService/{name}")(b"", metadata=()))
            assert failure.reason == "METHOD_UNKNOWN"
    (call,) = edge.refused_calls
    assert (call.method, call.reason, call.calls) == ("other", "METHOD_UNKNOWN", 2)


async def test_an_unauthenticated_request_is_not_decoded(edge: Edge) -> None:
    failure = await rpc_failure(edge.unary(PATH)(b"\xff\xff", metadata=bearer("nonsense")))
    assert failure.reason == "UNAUTHENTICATED"


async def test_a_failed_recording_does_not_change_the_answer(issuer: Issuer) -> None:
    async def fail(call: RefusedCall) -> None:
        raise OSError("no database")

    async with run_server(issuer, record_refused_call=fail) as edge:
        assert (await rpc_failure(edge.get(metadata=()))).reason == "UNAUTHENTICATED"
        denied = edge.get(metadata=issuer.bearer(scope=""))
        assert (await rpc_failure(denied)).reason == "SCOPE_MISSING"


async def test_a_recording_that_takes_too_long_is_abandoned(issuer: Issuer) -> None:
    async def hang(call: RefusedCall) -> None:
        await asyncio.Event().wait()

    async with asyncio.timeout(8), run_server(issuer, record_refused_call=hang) as edge:
        assert (await rpc_failure(edge.get(metadata=()))).reason == "UNAUTHENTICATED"
        denied = edge.get(metadata=issuer.bearer(scope=""))
        assert (await rpc_failure(denied)).reason == "SCOPE_MISSING"


# The server


async def test_a_streaming_method_passes_the_same_interceptors(issuer: Issuer) -> None:
    async def do(request: Any, context: Any) -> None:
        for number in range(3):
            cheque = {"cheque_id": f"{request.cheque_id}-{number}"}
            await context.write(queries.GetChequeResponse(cheque=cheque))
        raise RpcError("VIEW_BEHIND", "enough")

    streaming = made_service(
        "Streaming", rule=access_pb2.Rule(scope="ledger.read", any_object=True), streams=True
    )
    async with run_server(issuer, [Service(streaming, {"Do": do})]) as edge:
        method: Any = edge.channel.unary_stream(
            "/test.Streaming/Do", response_deserializer=queries.GetChequeResponse.FromString
        )
        request = queries.GetChequeRequest(cheque_id="c").SerializeToString()
        responses = aiter(method(request, metadata=issuer.bearer()))
        assert [(await anext(responses)).cheque.cheque_id for _ in range(3)] == ["c-0", "c-1", "c-2"]
        assert (await rpc_failure(anext(responses))).reason == "VIEW_BEHIND"
        assert (await rpc_failure(anext(aiter(method(request))))).reason == "UNAUTHENTICATED"


async def test_reflection_describes_the_services_only_if_it_is_on(issuer: Issuer) -> None:
    async def list_services(edge: Edge) -> list[str]:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(edge.channel)  # type: ignore[arg-type]
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        response = await anext(aiter(call))
        return [service.name for service in response.list_services_response.service]

    async with run_server(issuer, reflection=True) as edge:
        assert "acme.ledger.v1.QueryService" in await list_services(edge)
    async with run_server(issuer) as edge:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await edge.unary("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")(b"")
    assert error.value.code() is StatusCode.UNIMPLEMENTED


async def test_health_lists_all_services(edge: Edge) -> None:
    stub: Any = health_pb2_grpc.HealthStub(edge.channel)
    response = await stub.List(health_pb2.HealthListRequest())  # type: ignore[attr-defined] # the stub is older
    assert set(response.statuses) == {"", "liveness", "acme.ledger.v1.QueryService"}
    assert response.statuses["liveness"].status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("path", [PATH, "/grpc.health.v1.Health/Check", "/no/such"])
async def test_a_call_whose_message_does_not_arrive_is_ended(
    path: str, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_messages, "MESSAGE_TIMEOUT", 0.5)
    slow = asyncio.ensure_future(edge.get("slow-2000"))
    async with raw_connection(edge.server.port) as connection:
        stream = connection.take_stream()
        headers = encode_headers(grpc_headers(path.encode()))
        await connection.send(encode_frame(HEADERS, END_HEADERS, stream, headers))
        answer = await connection.read_answer(stream)
    assert answer.grpc_status in (StatusCode.INVALID_ARGUMENT.value[0], StatusCode.UNIMPLEMENTED.value[0])
    assert (await slow).cheque.cheque_id == "slow-2000", "a call with its message goes on"


async def test_a_server_does_not_start_on_the_port_of_another_one(edge: Edge) -> None:
    other = server.build(Settings(), address=f"127.0.0.1:{edge.server.port}", probe=toy_server.ready)
    with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{edge.server.port}: .*in use"):
        await other.start()


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:x", "127.0.0.1:99999", "192.0.2.1:5000"])
async def test_a_server_does_not_start_at_an_invalid_or_foreign_address(address: str) -> None:
    other = server.build(Settings(), address=address, probe=toy_server.ready)
    with pytest.raises(StartError, match=f"cannot listen on {address}"):
        await other.start()


def test_a_server_does_not_start_without_a_valid_key_file(tmp_path: Path) -> None:
    for content in ("", "{}", '{"keys": []}', "[1]"):
        (tmp_path / "jwks.json").write_text(content)
        with pytest.raises(StartError, match="DIPTYCH_JWKS"):
            server.open_keys(Settings(jwks=str(tmp_path / "jwks.json")))
    with pytest.raises(StartError, match="DIPTYCH_JWKS"):
        server.open_keys(Settings(jwks=str(tmp_path / "none.json")))
