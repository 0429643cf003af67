"""A read model, for tests of the query server."""

from collections.abc import AsyncIterator

import pytest

from tests.support.harness.read_model import ReadModel, read_model


@pytest.fixture
async def model(redis_url: str) -> AsyncIterator[ReadModel]:
    async with read_model(redis_url) as model:
        yield model
