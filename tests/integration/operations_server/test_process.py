"""The operations server as a process: it serves whatever is away, and only callers with its scopes."""

from pathlib import Path

from diptych.operations.v1 import operations_service_pb2 as protocol

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from devstack.tcp_ports import free_port
from operations.processes import OPERATIONS_SERVER
from tests.support.harness.caller import Caller
from tests.support.harness.waiting import until


async def test_a_caller_without_the_scope_is_refused(stack: Stack, operator: Caller) -> None:
    reader = Caller(stack, "operations.read")
    act = protocol.RetryParkedAggregatesRequest(projection="ordering.order", reason="test")
    assert await reader.rejection_reason(act) == "SCOPE_MISSING"
    assert await operator.rejection_reason(protocol.GetStateRequest()) == "REQUEST_INVALID"
    await reader.close()


async def test_it_reports_itself_like_other_processes(stack: Stack, operator: Caller) -> None:
    async def is_listed() -> bool:
        status = (await operator.query(protocol.GetStatusRequest())).status
        living = {each.kind: [instance.name for instance in each.living] for each in status.instances}
        (server,) = stack.of(OPERATIONS_SERVER)
        pids = [int(name.split(":")[1]) for name in living.get("operations_server", [])]
        return pids == [server.child.process.pid]

    await until(is_listed)


async def test_it_serves_while_every_server_is_away(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(3)]
    stack = temporary_stack(
        tmp_path,
        database_url=f"postgresql://diptych@127.0.0.1:{ports[0]}/diptych",
        nats_url=f"nats://127.0.0.1:{ports[1]}",
        redis_url=f"redis://127.0.0.1:{ports[2]}/0",
        command_servers=0,
        relays=0,
        projectors=0,
        query_servers=0,
        operations_servers=1,
    )
    (server,) = stack.of(OPERATIONS_SERVER)
    try:
        await server.start()
        operator = Caller(stack, "operations.read", "operations.act")
        assert await operator.rejection_reason(protocol.GetStateRequest()) == "REQUEST_INVALID"
        status = (await operator.query(protocol.GetStatusRequest())).status
        assert not status.healthy
        assert {(bool(figure.error), figure.good) for figure in status.figures} == {(True, False)}
        await operator.close()
    finally:
        assert await server.stop() == 0
