"""A store on an empty database for each test."""

from collections.abc import AsyncIterator

import pytest

from process_manager.postgres.store import SagaStore


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[SagaStore]:
    store = SagaStore(database_url)
    yield store
    await store.close()
