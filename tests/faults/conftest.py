"""One stack for all fault tests of a worker: it must be consistent again after each of them."""

import secrets
from collections.abc import AsyncIterator

import pytest

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from tests.support.harness.trade import trade
from tests.support.harness.traffic import Traffic
from tests.support.ledger.clerk import Clerk
from tests.support.ledger.installation import CONTEXT, installed

__all__ = ["trade"]


@pytest.fixture(scope="package")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("faults")
    with installed(
        contexts := f"{CONTEXT},banking"
    ):  # the money is banking's, all other traffic the ledger's
        async with temporary_stack(
            folder,
            contexts=contexts,
            command_servers=2,
            relays=2,
            query_servers=2,
            environment={"DIPTYCH_KEEP_STREAM": "3650d"},  # housekeeping may remove messages
        ) as stack:
            yield stack


@pytest.fixture
async def traffic(stack: Stack) -> AsyncIterator[Traffic]:
    traffic = Traffic(stack, secrets.randbits(32))
    yield traffic
    await traffic.close()


@pytest.fixture
async def clerk(stack: Stack) -> AsyncIterator[Clerk]:
    clerk = Clerk(stack)
    yield clerk
    await clerk.close()
