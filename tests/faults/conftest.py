"""One stack for all fault tests of a worker: it must be consistent again after each of them."""

import secrets
from collections.abc import AsyncIterator

import pytest

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from tests.support.harness.traffic import Traffic


@pytest.fixture(scope="package")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("faults")
    async with temporary_stack(folder, command_servers=2, relays=2, query_servers=2) as stack:
        yield stack


@pytest.fixture
async def traffic(stack: Stack) -> AsyncIterator[Traffic]:
    traffic = Traffic(stack, secrets.randbits(32))
    yield traffic
    await traffic.close()
