"""A read model, for tests of the query server."""

from collections.abc import AsyncIterator

import pytest

from tests.support.harness.read_model import ReadModel, read_model
from tests.support.ledger.stored_views import CHEQUES


@pytest.fixture
async def model(redis_url: str) -> AsyncIterator[ReadModel]:
    async with read_model(redis_url, CHEQUES) as model:
        yield model
