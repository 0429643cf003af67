"""A batch is read and folded while the one before it is written, and the write may fail or be stopped."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError  # noqa: A004 - redis-py's name

from projector import session
from projector.projection import Projection
from projector.records import Update
from projector.redis_store import RedisStore
from projector.retry_schedule import RetryPolicy, RetrySchedule
from projector.writer import Writer
from runtime.jetstream import ReaderLost
from tests.support.harness import projection_run
from tests.support.harness.log_lines import own_lines
from tests.support.harness.projection_run import ALL_PARTITIONS, VIEW, EventPublisher, projector
from tests.support.harness.waiting import until
from tests.support.ledger.events import EVENTS
from tests.support.ledger.histories import recorded, voided
from tests.support.ledger.stubs import events

HISTORY = [recorded(n, voided("c-1", reason)) for n, reason in enumerate("ab", 1)]
OTHER_CODE = Projection[Any](VIEW, events=EVENTS, indexes=lambda _: [(VIEW.index("reason", "other"), "c-1")])


@OTHER_CODE.on(events.ChequeVoided)
def ignore(*_: Any) -> None:
    pass


class FoldedReasons:
    """A projection that lists a cheque by its reason, and the reasons that it has folded."""

    def __init__(self) -> None:
        self.reasons = set[str]()
        self.projection = Projection[Any](
            VIEW, events=EVENTS, indexes=lambda cheque: [(VIEW.index("reason", cheque.void_reason), "c-1")]
        )
        self.projection.on(events.ChequeVoided)(self._fold)

    def _fold(self, cheque: Any, event: Any) -> None:
        cheque.void_reason = event.reason
        self.reasons.add(event.reason)

    async def wait(self, count: int) -> None:
        await until(lambda: len(self.reasons) == count)


@pytest.fixture(autouse=True)
def batches_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "BATCH_SIZE", 1)


def interrupt_first_write(folded: FoldedReasons, overtaken: bool) -> type[RedisStore]:
    """Return a store whose first write waits for the second fold.

    Then a projector with other code writes the first event's view, or the connection fails.
    """

    class InterruptedStore(RedisStore):
        interrupted = False

        async def write(self, updates: Sequence[Update], *arguments: Any) -> set[str]:
            if self.interrupted:
                return await super().write(updates, *arguments)
            self.interrupted = True
            await folded.wait(2)
            if not overtaken:
                raise ConnectionError("lost")
            other = RedisStore(self._redis, VIEW)
            await other.read_build()
            writer = Writer(OTHER_CODE, other, RetryPolicy(), lambda _: None, RetrySchedule(lambda _: False))
            await writer.write(await writer.fold(HISTORY[:1]))
            return await super().write(updates, *arguments)

    return InterruptedStore


def prepare_writes(before: Callable[[int], Awaitable[object]]) -> type[RedisStore]:
    """Return a store that calls `before` with the number of each write of events, and then writes."""

    class PreparedStore(RedisStore):
        count = 0

        async def write(self, updates: Sequence[Update], *arguments: Any) -> set[str]:
            if updates:
                self.count += 1
                await before(self.count)
            return await super().write(updates, *arguments)

    return PreparedStore


async def skip_check(_: object) -> None:
    """In place of a check of the stream, which would wait for the write."""


@pytest.mark.parametrize("together", [True, False], ids=["read together", "read apart"])
@pytest.mark.parametrize("overtaken", [True, False], ids=["conflict", "lost connection"])
async def test_a_batch_that_was_folded_on_a_write_without_effect_is_folded_again(
    redis_url: str,
    nats_url: str,
    redis: Redis,
    publisher: EventPublisher,
    monkeypatch: pytest.MonkeyPatch,
    together: bool,
    overtaken: bool,
) -> None:
    folded = FoldedReasons()
    if together:
        await publisher.publish(*HISTORY)
    else:
        monkeypatch.setattr(session.Session, "_check_stream", skip_check)
    # Its view has the version and the revision of the one that the second batch was folded on.
    store = interrupt_first_write(folded, overtaken)
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, projection=folded.projection, store=store
    ):
        if not together:
            await publisher.publish(HISTORY[0])
            await folded.wait(1)
            await publisher.publish(HISTORY[1])
        await until(lambda: projection_run.has_applied(redis, [HISTORY]))
    assert await projection_run.read_indexes(redis) == {"index:ledger.cheque:2:{reason/b}": {"c-1"}}


async def test_a_projector_that_stops_finishes_its_write(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session.Session, "_check_stream", skip_check)
    await publisher.publish(HISTORY[0])
    store = projection_run.pausing_store("write")
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, store=store) as running:
        pause: Any = running.store
        await pause.waiting.wait()
        running.stopping.set()
        ended, _ = await asyncio.wait(running.tasks[:1], timeout=session.MAX_WAIT)
        assert not ended, "the write is still on its way"
        pause.proceed.set()
        await running.stop()
        assert await projection_run.read_version(redis, "c-1") == 1


async def test_a_failed_write_is_noticed_without_another_event(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail_first(number: int) -> None:
        if number == 1:
            raise ConnectionError("lost")

    monkeypatch.setattr(session.Session, "_check_stream", skip_check)
    await publisher.publish(HISTORY[0])
    async with projector(redis_url, nats_url, partitions=ALL_PARTITIONS, store=prepare_writes(fail_first)):
        await until(lambda: projection_run.has_applied(redis, [HISTORY[:1]]), seconds=10)


async def test_a_backlog_whose_writes_succeed_again_has_recovered(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step of it ends with a write on its way."""
    recovered = asyncio.Event()

    async def fail_first(number: int) -> None:
        if number == 1:
            raise ConnectionError("lost")
        if number == 2 + session.MAX_BATCHES:  # the first of the next session's second step
            await recovered.wait()

    monkeypatch.setattr(session.Session, "_check_stream", skip_check)
    history = [recorded(n, voided("c-1", str(n))) for n in range(1, 3 + session.MAX_BATCHES)]
    await publisher.publish(*history)
    with own_lines() as lines:
        async with projector(
            redis_url, nats_url, partitions=ALL_PARTITIONS, store=prepare_writes(fail_first)
        ):
            await until(lambda: bool(lines.of("Recovered")), seconds=10)
            recovered.set()
            await until(lambda: projection_run.has_applied(redis, [history]))
    assert [line["after"] for line in lines.of("Recovered")] == ["Session failed"]


async def test_a_lost_reader_ends_no_write(
    redis_url: str, nats_url: str, redis: Redis, publisher: EventPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session ends after the write: the next one would begin at a checkpoint that is still to come."""
    writing, lost = asyncio.Event(), asyncio.Event()
    numbers = list[int]()

    async def wait_until_lost(number: int) -> None:
        numbers.append(number)
        writing.set()
        await lost.wait()
        await asyncio.sleep(0.1)  # as Redis takes time

    async def lose_reader(_: object) -> None:
        if writing.is_set() and not lost.is_set():
            lost.set()
            raise ReaderLost("lost")

    monkeypatch.setattr(session.Session, "_check_stream", lose_reader)
    await publisher.publish(HISTORY[0])
    async with projector(
        redis_url, nats_url, partitions=ALL_PARTITIONS, store=prepare_writes(wait_until_lost)
    ):
        await until(lambda: projection_run.has_applied(redis, [HISTORY[:1]]))
        await publisher.publish(HISTORY[1])
        await until(lambda: projection_run.has_applied(redis, [HISTORY]))
    assert numbers == [1, 2]
