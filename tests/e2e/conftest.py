"""One stack with two processes of each kind, shared by all tests that stop no process."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from tests.support.harness.clients_page import load_page
from tests.support.harness.shop import Shop
from tests.support.harness.trade import trade
from tests.support.harness.wheels import build_wheels
from tests.support.ledger.clerk import Clerk
from tests.support.ledger.installation import ENVIRONMENT

__all__ = ["trade"]


@pytest.fixture(scope="package")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    ledger = {"PYTHONPATH": ENVIRONMENT["PYTHONPATH"]}  # a context of another distribution, beside our own
    async with temporary_stack(
        folder,
        command_servers=2,
        relays=2,
        projectors=2,
        query_servers=2,
        operations_servers=1,
        environment=ledger,
    ) as stack:
        yield stack


@pytest.fixture
async def shop(stack: Stack) -> AsyncIterator[Shop]:
    shop = Shop(stack)
    yield shop
    await shop.close()


@pytest.fixture
async def clerk(stack: Stack) -> AsyncIterator[Clerk]:
    clerk = Clerk(stack)
    yield clerk
    await clerk.close()


@pytest.fixture(scope="package")
def page() -> Any:
    """The functions that the examples of docs/clients.md define."""
    return load_page()


@pytest.fixture
def token(stack: Stack) -> str:
    return stack.token("ordering.place", "ordering.own-prices", "ordering.read", "ordering.all")


@pytest.fixture(scope="package")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheels of `make dist`."""
    folder = tmp_path_factory.mktemp("wheels")
    build_wheels(folder)
    return folder
