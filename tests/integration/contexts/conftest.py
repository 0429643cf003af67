"""A read model of orders, for tests of ordering's queries."""

from collections.abc import AsyncIterator

import pytest

from tests.support.builders.order_views import ORDER_PROJECTIONS
from tests.support.harness.read_model import ReadModel, read_model


@pytest.fixture
async def model(redis_url: str) -> AsyncIterator[ReadModel]:
    async with read_model(redis_url, ORDER_PROJECTIONS) as model:
        yield model
