"""`diptych` as a client of the operations server, while servers are frozen, killed or cut off."""

import asyncio
import json
import os
import pty
import signal
import sys
import termios
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from time import monotonic

import pytest

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from devstack.tcp_ports import free_port
from operations.processes import OPERATIONS_SERVER, PROJECTOR
from tests.support.harness.command_line import diptych, start_command
from tests.support.harness.invariants import verify_stack
from tests.support.harness.shop import Shop, order_of
from tests.support.harness.waiting import until

DEADLINE = 8.0
"""Seconds for a command that takes 2 at most; the rest is for a busy machine. Earlier releases took 41."""
STORES = {"database_url": "PostgreSQL", "nats_url": "NATS", "redis_url": "Redis"}
FIGURES = (
    "command success rate",
    "query response time",
    "event processing lag",
    "failed events",
    "read model staleness",
)


NO_LIMITS = {
    "DIPTYCH_MAX_QUERY_RESPONSE_TIME": "1000",
    "DIPTYCH_MAX_EVENT_PROCESSING_LAG": "1000",
    "DIPTYCH_MAX_READ_MODEL_STALENESS": "1000",
}
"""The health figures of an outage stay bad for five minutes after it."""


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("operator")
    async with temporary_stack(
        folder, process_managers=1, operations_servers=1, environment=NO_LIMITS
    ) as stack:
        yield stack
        report = await verify_stack(stack)
        assert report.clean, report.to_text()


@pytest.fixture
async def shop(stack: Stack) -> AsyncIterator[Shop]:
    shop = Shop(stack)
    yield shop
    await shop.close()


@contextmanager
def frozen(stack: Stack, *stores: str) -> Iterator[None]:
    children = [stack.servers[store].child for store in stores]
    for child in children:
        child.freeze()
    try:
        yield
    finally:
        for child in children:
            child.thaw()


async def wait_healthy(stack: Stack) -> None:
    async def is_healthy() -> bool:
        code, out, err = await diptych(stack, "status")
        last.append(out + err)
        return (code, out.splitlines()[:1]) == (0, ["OK"])

    last: list[str] = []
    try:
        await until(is_healthy, 60)
    except AssertionError as error:
        raise AssertionError(last[-1]) from error


async def test_a_healthy_system_is_ok_and_the_page_names_all_parts(stack: Stack) -> None:
    await wait_healthy(stack)
    code, out, err = await diptych(stack, "status")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    subjects = {line.split("  ")[0] for line in lines}
    assert {"relay", "projector", "PostgreSQL", "NATS", "Redis", "outbox", "ordering.order"} <= subjects
    assert set(FIGURES) <= subjects
    assert all(len(line) <= 80 for line in lines)


async def find_unhealthy_first_line(stack: Stack) -> str:
    """Return the first line of a status in which something is not fine, and which came in time."""
    start = monotonic()
    code, out, err = await diptych(stack, "status")
    assert monotonic() - start < DEADLINE
    assert (code, err) == (1, ""), out + err
    return out.splitlines()[0]


FROZEN = [(store,) for store in STORES] + list(combinations(STORES, 2)) + [tuple(STORES)]


@pytest.mark.parametrize(
    "stores",
    [pytest.param(each, marks=[] if each == ("redis_url",) else pytest.mark.long) for each in FROZEN],
    ids=" ".join,
)
async def test_frozen_servers_are_named_in_time(stack: Stack, stores: Sequence[str]) -> None:
    await wait_healthy(stack)

    async def is_noticed() -> bool:
        return (await diptych(stack, "status"))[0] == 1

    with frozen(stack, *stores):
        await until(is_noticed)  # a status may be a second old
        for _ in range(3):  # nothing piles up at a server that does not answer
            assert await find_unhealthy_first_line(stack) != "OK"
        _, out, _ = await diptych(stack, "status", "--json")
        errors = {store["name"]: store["error"] for store in json.loads(out)["stores"]}
    assert {name for name, error in errors.items() if error} >= {STORES[store] for store in stores}
    await wait_healthy(stack)


async def test_an_operations_server_that_does_not_answer_is_one_line(stack: Stack) -> None:
    (server,) = stack.of(OPERATIONS_SERVER)
    server.child.freeze()
    try:
        start = monotonic()
        code, out, err = await diptych(stack, "status")
        assert monotonic() - start < DEADLINE
    finally:
        server.child.thaw()
    text = f"the operations server at {server.address} (DIPTYCH_OPERATIONS_ADDRESS) does not answer within"
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"Error: {text}")


async def test_an_operations_server_that_is_not_there_is_one_line(stack: Stack) -> None:
    address = f"127.0.0.1:{free_port()}"
    for command in ("status", "lag", "dead-letters list", "requests", "sagas list"):
        code, out, err = await diptych(stack, *command.split(), DIPTYCH_OPERATIONS_ADDRESS=address)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"{address} (DIPTYCH_OPERATIONS_ADDRESS) cannot be reached" in err


async def test_a_token_that_is_not_accepted_is_one_line_with_its_setting(
    stack: Stack, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    cases = {
        "no.token.atall": "UNAUTHENTICATED",
        stack.token("operations.read"): "SCOPE_MISSING",
        stack.token("ordering.read"): "SCOPE_MISSING",
    }
    for content, reason in cases.items():
        token.write_text(content)
        code, out, err = await diptych(
            stack,
            *("projections", "retry", "ordering.order", "--reason", "a test"),
            DIPTYCH_OPERATIONS_TOKEN=str(token),
        )
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith(f"Error: {reason}: ")
        assert "DIPTYCH_OPERATIONS_TOKEN" in err


async def test_a_frozen_projector_is_an_alert(stack: Stack, shop: Shop) -> None:
    await wait_healthy(stack)
    assert (await diptych(stack, "lag", "--alert", "5s"))[0] == 0
    (projector,) = stack.of(PROJECTOR)
    projector.child.freeze()
    try:
        await shop.place(order_of("alice"))

        async def is_alert() -> bool:
            code, out, _ = await diptych(stack, "lag", "ordering.order", "--alert", "2s")
            return code == 1 and " behind, the oldest for" in " ".join(out.split())

        await until(is_alert, 40)
        assert (await diptych(stack, "lag", "banking.account", "--alert", "2s"))[0] == 0
        code, out, _ = await diptych(stack, "lag", "ordering.order", "--partitions", "--alert", "2s")
        assert (code, sum(" behind, the oldest" in line for line in out.splitlines())) == (1, 2), out
    finally:
        projector.child.thaw()
    await wait_healthy(stack)


async def test_watching_the_status_appends_to_a_pipe_and_ends_with_ctrl_c(stack: Stack) -> None:
    await wait_healthy(stack)
    process = await start_command(stack, "status", "--watch", "--json")
    assert process.stdout and process.stderr
    for _ in range(2):
        assert json.loads(await process.stdout.readline())["healthy"]
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 30) == 130
    assert await process.stderr.read() == b""


async def test_watching_the_status_redraws_a_terminal_and_survives_the_server(stack: Stack) -> None:
    (server,) = stack.of(OPERATIONS_SERVER)
    reader, writer = pty.openpty()
    termios.tcsetwinsize(writer, (50, 80))
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("diptych")), "status", "--watch"),
        env={**os.environ, "DIPTYCH_OPERATIONS_ADDRESS": server.address}
        | {"DIPTYCH_OPERATIONS_TOKEN": stack.settings.operations_token, "TERM": "xterm"},
        stdout=writer,
        stderr=PIPE,
    )
    seen = bytearray()

    async def has(text: bytes) -> bool:
        seen.extend(await asyncio.to_thread(os.read, reader, 65536))
        return text in seen

    await until(lambda: has(b"\x1b[H\x1b[2J"), 20)
    await until(lambda: has(b"\x1b[32mOK"), 20)
    await server.kill()
    await until(lambda: has(b"\x1b[31mthe operations server at"), 20)
    await server.start()
    seen.clear()
    await until(lambda: has(b"\x1b[32mOK"), 60)
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 30) == 130
    os.close(reader)
    os.close(writer)
