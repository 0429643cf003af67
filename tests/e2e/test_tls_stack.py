"""Stacks with TLS: a whole one, on which the demo runs, and that of `make up TLS=1`, which operators call."""

import asyncio
import os
import ssl
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from devstack.store_users import StoreUsers
from operations.processes import KINDS
from runtime.jetstream import connect
from runtime.redis.pool import open_client
from tests.support.harness.local_stack import LocalStack
from tests.support.harness.postgres_binaries import find_postgres_binaries
from tests.support.harness.waiting import until

pytestmark = pytest.mark.long


async def run(*arguments: str | Path, folder: Path | None = None, **variables: str) -> tuple[int, str]:
    """Run a Python program; return its exit code and its output."""
    process = await create_subprocess_exec(
        sys.executable, *arguments, cwd=folder, env=os.environ | variables, stdout=PIPE, stderr=STDOUT
    )
    output = (await process.communicate())[0].decode()
    return process.returncode or 0, output


@pytest.mark.parametrize("grpc_server", ["grpc.aio", "h2corn"])
async def test_the_demo_runs_on_tls(grpc_server: str) -> None:
    code, output = await run("-m", "devstack.demo", "--tls", DIPTYCH_GRPC_SERVER=grpc_server)
    assert code == 0, output
    assert "OrderShipped" in output, "steps of sagas, too"


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[LocalStack]:
    up = LocalStack(tmp_path, tls=True)
    yield up
    await up.close()


async def test_the_local_stack_uses_tls_everywhere(up: LocalStack) -> None:
    await up.start({"PG_BIN": str(await find_postgres_binaries())})
    certificates = up.folder / ".diptych/certificates"
    assert f"export DIPTYCH_TLS_CA={certificates}/ca.pem" in up.output
    assert "in the clear" not in up.output
    status = ("-m", "operations.cli", "status")
    addresses: dict[str, Any] = {name: str(address) for name, address in up.addresses.items()}
    by_tls = partial(run, *status, folder=up.folder, **addresses, DIPTYCH_TLS_CA=str(certificates / "ca.pem"))

    async def is_fine() -> bool:
        code, output = await by_tls()
        return code == 0 and output.count(" SERVING") >= len(KINDS) - 1

    await until(is_fine)  # the operations server serves before it has connected
    code, output = await run(*status, folder=up.folder, **addresses)
    assert (code, "cannot be reached" in output) == (2, True), output
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    await check_stores(up.ports[:3], context, certificates / "ca.pem")


async def check_stores(ports: list[int], context: ssl.SSLContext, authority: Path) -> None:
    """Check that the three stores take connections by TLS."""
    postgresql, nats, redis = ports
    password = authority.parent.parent / "postgres/pgpass"
    url = f"postgresql://diptych@127.0.0.1:{postgresql}/diptych"
    connection = await asyncpg.connect(url, ssl=context, passfile=str(password))
    assert await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    await connection.close()
    urls = StoreUsers(authority.parent.parent).name_administrators(
        {
            "nats_url": f"tls://127.0.0.1:{nats}?ca={authority}",
            "redis_url": f"rediss://127.0.0.1:{redis}/0?ssl_ca_certs={authority}",
        }
    )
    async with open_client(urls["redis_url"]) as client:
        assert await client.dbsize()
    async with await connect(urls["nats_url"], "test") as connected:
        await asyncio.wait_for(connected.wait_until_connected(), 20)
