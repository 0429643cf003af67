"""Redis, and a publisher of events, for tests of the projector."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tests.support.harness import projection_run
from tests.support.harness.projection_run import EventPublisher


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def publisher(nats_url: str) -> AsyncIterator[EventPublisher]:
    """A publisher with an empty, complete stream."""
    async with projection_run.publisher(nats_url) as events:
        await events.create()
        yield events
