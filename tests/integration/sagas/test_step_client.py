"""The step client tells calls that were denied from other calls without an answer."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from process_manager.dispatch.step_client import OutcomeUnknown, StepClient
from process_manager.postgres.due_work import DueStep
from runtime.process.settings import Settings
from tests.support.ledger.stubs import commands

STEP = DueStep(
    "ledger.collection",
    "c",
    "cash",
    1,
    f"/{commands.DESCRIPTOR.services_by_name['CommandService'].full_name}/CashCheque",
    b"",
    0,
    False,
    "c-1",
    None,
)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[tuple[StepClient, list[grpc.StatusCode]]]:
    """A client of a server that ends each call with the first of these statuses."""
    statuses: list[grpc.StatusCode] = []

    class AbortAll(grpc.aio.ServerInterceptor):
        async def intercept_service(self, continuation: object, details: object) -> Any:
            async def abort(request: bytes, context: Any) -> None:
                await context.abort(statuses[0], "no")

            return grpc.unary_unary_rpc_method_handler(abort)

    server = grpc.aio.server(interceptors=[AbortAll()])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    token = tmp_path / "token"
    token.write_text("token")
    client = StepClient(Settings(command_address=address, process_manager_token=str(token)))
    yield client, statuses
    await client.close()
    await server.stop(None)


@pytest.mark.parametrize(
    ("status", "denied"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, True),
        (grpc.StatusCode.UNAUTHENTICATED, True),
        (grpc.StatusCode.UNAVAILABLE, False),
        (grpc.StatusCode.NOT_FOUND, False),  # without this system's ErrorInfo, perhaps from a proxy
    ],
)
async def test_a_call_without_an_answer_says_whether_it_was_denied(
    client: tuple[StepClient, list[grpc.StatusCode]], status: grpc.StatusCode, denied: bool
) -> None:
    step_client, statuses = client
    statuses.append(status)
    with pytest.raises(OutcomeUnknown, match=status.name) as error:
        await step_client.call(STEP, None, within=5)
    assert error.value.denied == denied
