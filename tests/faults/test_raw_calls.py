"""Calls that no server can decode arrive at every process all the time: callers notice nothing."""

import asyncio
from contextlib import suppress

from devstack.stack import Stack
from operations.processes import check_health
from tests.support.harness.invariants import assert_answers_recorded, verify_stack
from tests.support.harness.raw_http2 import grpc_headers, raw_connection
from tests.support.harness.traffic import Traffic

PAUSE = 0.02
UNIMPLEMENTED = 12


async def send_forever(address: str, answers: list[int | None]) -> None:
    port = int(address.rpartition(":")[2])
    async with raw_connection(port) as connection:
        while True:
            answers.append((await connection.call(grpc_headers(b"/\xff"))).grpc_status)
            await asyncio.sleep(PAUSE)


async def test_calls_that_cannot_be_decoded_disturb_no_other(stack: Stack, traffic: Traffic) -> None:
    pids = [process.child.process.pid for process in stack.processes]
    answers: dict[str, list[int | None]] = {process.name: [] for process in stack.processes}
    senders = [
        asyncio.create_task(send_forever(process.address, answers[process.name]))
        for process in stack.processes
    ]
    async with traffic.flowing():
        await traffic.more(60)
    for sender in senders:
        sender.cancel()
        with suppress(asyncio.CancelledError):
            await sender
    print({name: len(statuses) for name, statuses in answers.items()})
    expected = UNIMPLEMENTED if stack.settings.grpc_server == "grpc.aio" else None  # h2corn resets such calls
    for name, statuses in answers.items():
        assert set(statuses) == {expected}, name
    assert [process.child.process.pid for process in stack.processes] == pids
    for process in stack.processes:
        assert await check_health(process.address) == "SERVING", process.name
    await assert_answers_recorded(stack, traffic.answers)
    assert (await verify_stack(stack)).clean
