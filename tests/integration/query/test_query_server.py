"""The query server as a process, as its callers and its operator see it."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import urlsplit

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpc_health.v1 import health_pb2, health_pb2_grpc
from jwt.algorithms import OKPAlgorithm

from devstack.servers import Valkey
from devstack.tcp_ports import free_port
from query_server.service import QueryContext, query_service
from runtime.grpc import server
from runtime.process.settings import Settings
from runtime.process.start_error import StartError
from tests.support.harness.freshness import NO_LIMIT, NO_NOTIFICATIONS, make_serving
from tests.support.harness.keys import mint_token, write_ring
from tests.support.harness.read_model import INCARNATION
from tests.support.harness.read_model import ReadModel as Model
from tests.support.harness.rpc_failure import rpc_failure
from tests.support.harness.tcp_proxy import TcpProxy
from tests.support.harness.waiting import until
from tests.support.ledger import queries as ledger
from tests.support.ledger.installation import ENVIRONMENT
from tests.support.ledger.stored_views import CHEQUE, cheque
from tests.support.ledger.stubs import queries, queries_grpc

KEY = Ed25519PrivateKey.generate()
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="session")
def jwks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "jwks.json"
    key = json.loads(OKPAlgorithm.to_jwk(KEY.public_key())) | {"kid": "k"}
    path.write_text(json.dumps({"keys": [key]}))
    return path


def bearer(scope: str = "ledger.read") -> tuple[tuple[str, str], ...]:
    claims: dict[str, Any] = {"sub": "test", "scope": scope, "iss": "diptych-local", "aud": "diptych"}
    claims |= {"iat": time(), "exp": time() + 60}
    return (("authorization", f"Bearer {jwt.encode(claims, KEY, 'EdDSA', {'kid': 'k'})}"),)


@dataclass(frozen=True)
class QueryServer:
    """A query server process, and a channel and stub to call it."""

    process: Process
    channel: grpc.aio.Channel
    queries: Any
    address: str

    async def get_health(self) -> Any:
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        request = health_pb2.HealthCheckRequest(service="acme.ledger.v1.QueryService")
        response = await stub.Check(request, wait_for_ready=True)
        return response.status

    async def is_serving(self) -> bool:
        return bool(await self.get_health() == SERVING)


async def start(redis_url: str, jwks: Path, port: int, **more: str) -> Process:
    settings = {
        "DIPTYCH_REDIS_URL": redis_url,
        "DIPTYCH_JWKS": str(jwks),
        "DIPTYCH_KEYS": str(write_ring(jwks.with_name("keys.json"))),
        "DIPTYCH_QUERY_ADDRESS": f"127.0.0.1:{port}",
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "query_server",
        env=os.environ | ENVIRONMENT | settings | more,
        stdout=PIPE,
        stderr=PIPE,
    )


@asynccontextmanager
async def run_server(redis_url: str, jwks: Path, **more: str) -> AsyncIterator[QueryServer]:
    port = free_port()
    process = await start(redis_url, jwks, port, **more)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Any = queries_grpc.QueryServiceStub(channel)
            yield QueryServer(process, channel, stub, f"127.0.0.1:{port}")
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.communicate(), 10)
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.fixture(scope="module")
async def query_server(redis_server: Valkey, jwks: Path) -> AsyncIterator[QueryServer]:
    async with run_server(redis_server.url, jwks) as server:
        await until(server.is_serving, 30)
        yield server


async def test_a_response_carries_the_view_and_its_staleness(query_server: QueryServer, model: Model) -> None:
    await model.put(cheque("c-1", version=2))
    await model.set_as_of(int(time() * 1000))

    async def get_staleness() -> dict[str, Any]:
        call = query_server.queries.GetCheque(queries.GetChequeRequest(cheque_id="c-1"), metadata=bearer())
        assert await call == queries.GetChequeResponse(cheque=cheque("c-1", version=2))
        return {key: value for key, value in await call.trailing_metadata() if key == "diptych-staleness-ms"}

    await until(get_staleness)  # a sample is taken twice a second
    assert 0 <= int((await get_staleness())["diptych-staleness-ms"]) < 5_000


async def test_a_list_is_returned_and_needs_a_filter(query_server: QueryServer, model: Model) -> None:
    await model.put(cheque("c-1"), cheque("c-2", written=1))
    response = await query_server.queries.ListCheques(
        queries.ListChequesRequest(account_id="a-1"), metadata=bearer()
    )
    assert [view.cheque_id for view in response.cheques] == ["c-2", "c-1"]
    failure = await rpc_failure(
        query_server.queries.ListCheques(queries.ListChequesRequest(), metadata=bearer())
    )
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID")


async def test_an_error_carries_its_reason_and_the_staleness(query_server: QueryServer, model: Model) -> None:
    await model.set_as_of(int(time() * 1000))

    async def has_staleness() -> bool:
        failure = await rpc_failure(
            query_server.queries.GetCheque(queries.GetChequeRequest(cheque_id="c-9"), metadata=bearer())
        )
        assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "CHEQUE_NOT_FOUND")
        assert (failure.domain, failure.metadata) == ("ledger.diptych", {"cheque_id": "c-9"})
        error: Any = failure.__cause__
        return "diptych-staleness-ms" in dict(error.trailing_metadata() or ())

    await until(has_staleness)


@pytest.mark.parametrize(("deadline", "earliest"), [(0.8, 0.6), (None, 1.5)])
async def test_a_view_that_stays_behind_is_reported_before_the_deadline(
    query_server: QueryServer, model: Model, deadline: float | None, earliest: float
) -> None:
    token = mint_token(INCARNATION, {"ledger.cheque.c-1": 5})
    request = queries.GetChequeRequest(cheque_id="c-1", at_least_as_fresh=token)
    start = asyncio.get_running_loop().time()
    failure = await rpc_failure(query_server.queries.GetCheque(request, metadata=bearer(), timeout=deadline))
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "VIEW_BEHIND")
    assert asyncio.get_running_loop().time() - start > earliest


async def test_another_scope_reads_nothing(query_server: QueryServer) -> None:
    call = query_server.queries.GetCheque(
        queries.GetChequeRequest(cheque_id="c-1"), metadata=bearer("ledger.write")
    )
    failure = await rpc_failure(call)
    assert (failure.code, failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")


async def test_it_serves_only_while_redis_reachable(model: Model, redis_url: str, jwks: Path) -> None:
    proxy = TcpProxy(urlsplit(redis_url).port or 6379)
    async with proxy:
        pass  # the port is free again
    async with run_server(f"redis://127.0.0.1:{proxy.port}", jwks) as server:
        assert await server.get_health() == NOT_SERVING
        failure = await rpc_failure(
            server.queries.GetCheque(queries.GetChequeRequest(cheque_id="c-1"), metadata=bearer())
        )
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "READ_MODEL_UNAVAILABLE")
        async with proxy:
            await until(server.is_serving)
        await until(lambda: is_not_serving(server))


async def is_not_serving(server: QueryServer) -> bool:
    return not await server.is_serving()


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"DIPTYCH_KEYS": "/nowhere/keys.json"}, "query_server: DIPTYCH_KEYS=/nowhere/keys.json: "),
        ({"DIPTYCH_MAX_WAIT": "0"}, "settings: DIPTYCH_MAX_WAIT: "),
        ({"DIPTYCH_MAX_WAITS": "-1"}, "settings: DIPTYCH_MAX_WAITS: "),
        ({"DIPTYCH_MAX_WATCHES_PER_CALLER": "many"}, "settings: DIPTYCH_MAX_WATCHES_PER_CALLER: "),
    ],
)
async def test_a_wrong_setting_is_reported_in_one_line(
    redis_url: str, jwks: Path, setting: dict[str, str], problem: str
) -> None:
    process = await start(redis_url, jwks, free_port(), **setting)
    _, stderr = await asyncio.wait_for(process.communicate(), 15)
    assert (process.returncode, stderr.count(b"\n")) == (2, 1)
    assert stderr.decode().startswith(problem)


async def test_a_wrong_redis_address_is_reported_in_one_line(jwks: Path) -> None:
    process = await start("http://example.org", jwks, free_port())
    _, stderr = await asyncio.wait_for(process.communicate(), 15)
    assert process.returncode == 2
    assert stderr.startswith(b"settings: DIPTYCH_REDIS_URL: ")
    assert stderr.count(b"\n") == 1


async def test_a_method_without_a_handler_prevents_the_start(model: Model, jwks: Path) -> None:
    context = ledger.CONTEXT
    read_model = make_serving(CHEQUE, model.reader)
    incomplete = QueryContext(context.service, {"GetCheque": context.queries["GetCheque"]})
    service = query_service(incomplete, {CHEQUE: read_model}, NO_NOTIFICATIONS, NO_LIMIT)
    with pytest.raises(StartError, match="ListCheques"):
        server.build(
            Settings(jwks=str(jwks)), [service], address="127.0.0.1:0", probe=model.reader.serves_reads
        )
