"""Load tests with ghz on both gRPC servers: the scenarios of `make load`, and those of docs/clients.md."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from bench.load_data import ORDERS
from devstack.stack import Stack, variables
from devstack.stack_kinds import temporary_stack
from tests.support.harness.clients_page import ROOT, read_blocks
from tests.support.harness.command_line import diptych
from tests.support.harness.waiting import until

GHZ = ROOT / ".venv/bin/ghz"
SCENARIOS = sorted({file.name.partition(".")[0] for file in (ROOT / "bench/ghz").glob("*.json")})

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not GHZ.exists(), reason="ghz is missing: make tools installs it, and needs Go"),
]


@pytest.fixture(scope="module", params=["grpc.aio", "h2corn"])
async def loaded_stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    folder, environment = tmp_path_factory.mktemp("load"), {"DIPTYCH_GRPC_SERVER": request.param}
    async with temporary_stack(
        folder, process_managers=1, operations_servers=1, environment=environment
    ) as stack:
        yield stack


async def start_load(stack: Stack, *arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.load_test", *arguments),
        cwd=ROOT,
        env=os.environ | variables(stack.settings),
        stdout=PIPE,
        stderr=STDOUT,
        start_new_session=True,
    )


async def has_no_open_saga(stack: Stack) -> bool:
    code, out, err = await diptych(stack, "sagas", "list", "--limit", "10")
    assert code == 0, err
    return out.strip() == "no open sagas"


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_scenario_is_answered_and_leaves_no_saga(loaded_stack: Stack, scenario: str) -> None:
    load = await start_load(loaded_stack, scenario, "--duration", "2s")
    output = (await load.communicate())[0].decode()
    assert load.returncode == 0, output
    statuses = re.findall(r"99 % .* ms   (.*)", output)
    expected = "Canceled" if scenario == "watches" else "OK"  # ghz cancels a watch after its first response
    assert statuses
    assert all(re.fullmatch(rf"{expected} [0-9,]+", status) for status in statuses), output
    await until(lambda: has_no_open_saga(loaded_stack), 60)


async def test_an_interrupted_load_leaves_no_saga(loaded_stack: Stack) -> None:
    connection = await asyncpg.connect(loaded_stack.settings.database_url)

    async def count_orders() -> int:
        return int(await connection.fetchval("SELECT count(*) FROM streams WHERE type = 'ordering.order'"))

    before = max(await count_orders(), ORDERS)  # the first load of a stack places the orders to read
    load = await start_load(loaded_stack, "command")

    async def has_placed_orders() -> bool:
        return await count_orders() > before + 50

    await until(has_placed_orders, 60)
    os.killpg(load.pid, signal.SIGINT)  # as Ctrl-C at a terminal
    output = (await load.communicate())[0].decode()
    assert "load: interrupted" in output
    assert await count_orders() < before + 1_000, "it did not run to its end"
    await until(lambda: has_no_open_saga(loaded_stack), 60)  # seats of an earlier load may be expiring
    await connection.close()


@pytest.mark.parametrize(
    "block", [block for block in read_blocks("sh") if "ghz" in block], ids=["list", "place"]
)
async def test_the_pages_command_lines_run(loaded_stack: Stack, tmp_path: Path, block: str) -> None:
    for name in (".venv", ".cache", "protos"):
        (tmp_path / name).symlink_to(ROOT / name)
    settings = loaded_stack.settings
    script = block.replace("127.0.0.1:50051", settings.command_address)
    script = script.replace("127.0.0.1:50052", settings.query_address).replace("30s", "1s")
    run = await asyncio.create_subprocess_exec(
        *("bash", "-ec", script),
        cwd=tmp_path,
        env=os.environ
        | {
            "TOKEN": loaded_stack.token(
                "ordering.read", "ordering.place", "ordering.own-prices", "ordering.all"
            )
        },
        stdout=PIPE,
        stderr=STDOUT,
    )
    output = (await run.communicate())[0].decode()
    assert run.returncode == 0, output
    assert re.findall(r"\[(\w+)\] +\d+ responses", output) == ["OK"], output
