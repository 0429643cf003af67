"""A command is committed, its answer is lost, and the caller retries."""

import grpc
import pytest

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER
from tests.support.harness.bearer import bearer
from tests.support.harness.invariants import assert_consistent
from tests.support.harness.tcp_proxy import TcpProxy
from tests.support.harness.traffic import Answers
from tests.support.ledger.clerk import cheque_of
from tests.support.ledger.stubs import commands_grpc


@pytest.mark.parametrize("server", [0, 1], ids=["the same server", "another server"])
async def test_a_command_whose_answer_was_lost_has_one_effect_and_one_answer(
    stack: Stack, server: int
) -> None:
    addresses = [process.address for process in stack.of(COMMAND_SERVER)]
    caller, lost, answers = bearer(stack, "ledger.write"), cheque_of("unlucky"), Answers()
    async with (
        TcpProxy(int(addresses[0].rpartition(":")[2])) as proxy,
        grpc.aio.insecure_channel(f"127.0.0.1:{proxy.port}") as broken,
        grpc.aio.insecure_channel(addresses[server]) as whole,
    ):
        await commands_grpc.CommandServiceStub(broken).WriteCheque(cheque_of("lucky"), metadata=caller)
        proxy.drops_answers = True
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await commands_grpc.CommandServiceStub(broken).WriteCheque(lost, metadata=caller, timeout=2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        first, second = [
            (await commands_grpc.CommandServiceStub(whole).WriteCheque(lost, metadata=caller)).receipt
            for _ in range(2)
        ]
    assert first == second
    answers.accepted[lost.request_id] = ("WriteCheque", first)
    await assert_consistent(stack, answers)
