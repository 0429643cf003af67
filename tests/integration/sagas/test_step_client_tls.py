"""The step client calls by TLS, with certificates that may change, and sends no token in the clear."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from process_manager.dispatch.step_client import OutcomeUnknown, StepClient
from runtime.process.settings import Settings
from runtime.process.start_error import InvalidSetting, StartError
from tests.integration.sagas.test_step_client import STEP
from tests.support.harness.authority import Authority
from tests.support.harness.waiting import until


@asynccontextmanager
async def serve(authority: Authority, **issued: Any) -> AsyncIterator[str]:
    """Run a server that wants certificates of clients and answers each call; yield its address."""

    class AnswerAll(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            async def answer(request: bytes, context: Any) -> bytes:
                await asyncio.sleep(0.001)
                return b""

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers([AnswerAll()])
    certificate, key = (path.read_bytes() for path in authority.write("server", **issued))
    credentials = grpc.ssl_server_credentials([(key, certificate)], authority.path.read_bytes(), True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@asynccontextmanager
async def connect(authority: Authority, address: str, **settings: Any) -> AsyncIterator[StepClient]:
    token = authority.folder / "token"
    token.write_text("token")
    chosen = {"tls_ca": str(authority.path), **authority.settings("manager"), **settings}
    client = StepClient(Settings(command_address=address, process_manager_token=str(token), **chosen))
    yield client
    await client.close()


async def test_calls_go_on_while_the_certificates_change(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serve(authority) as address, connect(authority, address) as client:
        assert client.tls is not None
        stopping, answered = False, 0

        async def call() -> None:
            nonlocal answered
            while not stopping:
                await client.call(STEP, None, within=10)
                answered += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(call())
            for _ in range(3):
                await until(lambda: bool(client._channels))
                before = set(client._channels.values())
                authority.write("manager")
                await client.tls.reload()
                assert not before & set(client._channels.values())
                expected = answered + 30
                await until(lambda expected=expected: answered >= expected)  # type: ignore[misc]
            stopping = True


@pytest.mark.parametrize("fault", ["name", "authority", "own"])
async def test_a_server_or_client_that_is_not_trusted_gets_no_answer(tmp_path: Path, fault: str) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "foreign").mkdir()
    foreign = Authority(tmp_path / "foreign")
    issued = {"hosts": ("elsewhere.example",)} if fault == "name" else {}
    settings = {
        "name": {},
        "authority": {"tls_ca": str(foreign.path)},
        "own": foreign.settings("manager"),
    }[fault]
    async with serve(authority, **issued) as address, connect(authority, address, **settings) as client:
        with pytest.raises(OutcomeUnknown, match="UNAVAILABLE"):
            await client.call(STEP, None, within=5)


def test_tokens_are_not_sent_to_other_machines_in_the_clear(tmp_path: Path) -> None:
    targets: dict[str, Any] = {
        "command_targets": "ledger=ledger.internal:50051",
        "process_manager_token": str(tmp_path / "t"),
    }
    with pytest.raises(StartError, match=r"cannot call ledger\.internal:50051 without TLS"):
        StepClient(Settings(**targets))
    StepClient(Settings(**targets, insecure=True))
    StepClient(Settings(**targets, tls_ca=str(Authority(tmp_path).path)))
    with pytest.raises(InvalidSetting, match="DIPTYCH_TLS_CA: cannot use "):
        StepClient(Settings(**targets, tls_ca=str(tmp_path / "absent")))
