"""An operations server as a process, on the worker's servers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from tests.support.harness.caller import Caller


@pytest.fixture
async def stack(tmp_path: Path, database_url: str, nats_url: str, redis_url: str) -> AsyncIterator[Stack]:
    stack = temporary_stack(
        tmp_path,
        database_url=database_url,
        nats_url=nats_url,
        redis_url=redis_url,
        command_servers=0,
        relays=0,
        projectors=0,
        query_servers=0,
        operations_servers=1,
    )
    async with stack:
        yield stack


@pytest.fixture
async def operator(stack: Stack) -> AsyncIterator[Caller]:
    operator = Caller(stack, "operations.read", "operations.act")
    yield operator
    await operator.close()
