"""PostgreSQL is restored from a backup; after `diptych restored` all other stores follow it."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import grpc
from diptych.consistency.v1.consistency_pb2 import Receipt

from devstack.servers import Postgres
from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, QUERY_SERVER, RELAY
from tests.support.harness.command_line import diptych
from tests.support.harness.invariants import assert_consistent
from tests.support.harness.rpc_failure import reason_of, rpc_failure
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until
from tests.support.ledger.clerk import Clerk, cheque_of


async def test_after_a_restore_all_stores_follow_the_database(
    stack: Stack, traffic: Traffic, tmp_path: Path
) -> None:
    server, clerk = stack.servers["database_url"], Clerk(stack)
    assert isinstance(server, Postgres)
    kept = await traffic.write("kept")
    await server.stop()
    await _copy_data(server.data, tmp_path / "backup")
    await server.start()
    request = cheque_of("lost")
    lost = await _write(clerk, request)
    await clerk.get(lost.aggregate_id, lost.consistency_token)
    listed = await clerk.list(account_id="lost")
    await server.kill()
    shutil.rmtree(server.data)
    await _copy_data(tmp_path / "backup", server.data)
    await server.start()
    for kind in (COMMAND_SERVER, RELAY, QUERY_SERVER):  # the first of each kind keeps running
        await stack.of(kind)[1].kill()
        await stack.of(kind)[1].start()

    code, output, _ = await diptych(stack, "restored")
    assert code == 0
    old, new = (line.split()[-1] for line in output.splitlines()[:2])
    assert old < new
    early = await _write(clerk, cheque_of("early"))
    assert await _read_back(clerk, early) in ("VIEW_REBUILDING", "VIEW_BEHIND", "READ_MODEL_UNAVAILABLE", "")

    async def is_gone() -> bool:
        return await _status_of_get(clerk, lost.aggregate_id) is grpc.StatusCode.NOT_FOUND

    await until(is_gone, 40)
    assert len(listed) == 1
    assert await clerk.list(account_id="lost") == []
    for receipt in (kept, lost):
        for _ in stack.of(QUERY_SERVER):
            failure = await rpc_failure(clerk.get(receipt.aggregate_id, receipt.consistency_token))
            assert failure.reason == "TOKEN_OUTDATED"
    assert (await clerk.get(kept.aggregate_id)).cheque_id == kept.aggregate_id
    again = await _write(clerk, request)
    assert (await clerk.get(again.aggregate_id, again.consistency_token)).version == 1
    async with traffic.flowing():
        await traffic.more(50)
    await assert_consistent(stack, traffic.answers)
    await clerk.close()


async def test_restored_reports_an_unreachable_database_in_one_line(stack: Stack) -> None:
    code, out, err = await diptych(stack, "restored", DIPTYCH_DATABASE_URL="postgresql://x@127.0.0.1:1/x")
    assert (code, out) == (2, "")
    assert err.startswith("Error: a server is unreachable")


async def _write(clerk: Clerk, request: Any) -> Receipt:
    """Write a cheque; retry while the server's connections still fail after the outage."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await clerk.write(request)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                await asyncio.sleep(0.1)


async def _read_back(clerk: Clerk, receipt: Receipt) -> str:
    """Return the reason why the cheque cannot be read yet, or an empty string."""
    try:
        await clerk.get(receipt.aggregate_id, receipt.consistency_token)
    except grpc.aio.AioRpcError as error:
        return reason_of(error)
    return ""


async def _status_of_get(clerk: Clerk, cheque_id: str) -> grpc.StatusCode:
    try:
        await clerk.get(cheque_id)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def _copy_data(source: Path, target: Path) -> None:
    """Copy a data directory with its owner, which PostgreSQL checks."""
    process = await asyncio.create_subprocess_exec("cp", "-a", source, target)
    assert await process.wait() == 0
