"""A relay that fails between any two steps: the stream has each event once, in order."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from command_server.relay.outbox import Outbox
from contracts.envelope import RecordedEvent
from devstack.servers import Nats, Postgres
from runtime.jetstream import Connection
from tests.support.harness import feed
from tests.support.harness.feed import Writer
from tests.support.harness.relay_hooks import HookedPublisher
from tests.support.harness.servers import TEMPLATE
from tests.support.harness.waiting import until


async def test_a_failure_between_acknowledgement_and_mark_duplicates_nothing(
    database_url: str, own_nats: Nats, writer: Writer
) -> None:
    failures = 0

    class FailingPublisher(HookedPublisher):
        async def after(self, events: Sequence[RecordedEvent]) -> None:
            nonlocal failures
            failures += 1
            if failures < 4:
                raise ConnectionError("failed before the mark")

    async with feed.relay(database_url, own_nats.url, FailingPublisher) as relay:
        for _ in range(10):
            await writer.commit("x", "y")
            await writer.wait_until_published()
        await feed.assert_whole(relay.connection, writer)
    assert failures > 4


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 10))])
async def test_errors_at_any_step_under_load_lose_and_duplicate_nothing(
    database_url: str, own_nats: Nats, writer: Writer, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("command_server.relay.relay.MAX_PAUSE", 0.05)
    dice = random.Random(seed)
    failures = 0

    def fail_at_random() -> None:
        nonlocal failures
        if dice.random() < 0.2:
            failures += 1
            raise ConnectionError("failed at random")

    class UnreliablePublisher(HookedPublisher):
        async def before(self, events: Sequence[RecordedEvent]) -> None:
            fail_at_random()

        async def after(self, events: Sequence[RecordedEvent]) -> None:
            fail_at_random()

    def make_unreliable(method: Callable[..., Any]) -> Callable[..., Any]:
        async def unreliable(self: Outbox, *arguments: Any) -> Any:
            fail_at_random()
            result = await method(self, *arguments)
            fail_at_random()
            return result

        return unreliable

    for name in ("mark", "mark_and_read", "read_pending"):
        monkeypatch.setattr(Outbox, name, make_unreliable(getattr(Outbox, name)))
    async with feed.relay(database_url, own_nats.url, UnreliablePublisher) as relay:
        async with feed.generate_load(writer):
            await until(lambda: failures >= 30)
        await writer.wait_until_published()
        await feed.assert_whole(relay.connection, writer)


async def test_a_relay_that_ends_before_it_marks_leaves_the_mark_to_the_next(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feed.relay(database_url, own_nats.url):
        await feed.wait_until_complete(observer)
        with monkeypatch.context() as patched:
            patched.setattr("command_server.relay.relay.MARK_DELAY", 60.0)
            await writer.commit(*"abc")

            async def are_published() -> bool:
                return (await feed.read_identity(observer)).last_sequence == 3

            await until(are_published)
    assert (await writer.count_pending(), await writer.read_marked_sequence()) == (3, 0)
    async with feed.relay(database_url, own_nats.url):
        await writer.commit(*"abc")
        await writer.wait_until_published()
        await feed.assert_whole(observer, writer)


async def test_the_relay_resumes_after_an_outage_of_nats(
    database_url: str, own_nats: Nats, writer: Writer, observer: Connection
) -> None:
    async def has_backlog() -> bool:
        return await writer.count_pending() >= 500

    async with feed.relay(database_url, own_nats.url):
        async with feed.generate_load(writer):
            await writer.wait_until_marked(100)
            await own_nats.kill()
            await until(has_backlog)
            await own_nats.start()
        await writer.wait_until_published()
        await until(lambda: observer.connected)
        await feed.assert_whole(observer, writer)


async def test_the_relay_resumes_after_an_outage_of_postgresql(
    own_postgres: Postgres, own_nats: Nats, observer: Connection
) -> None:
    url = own_postgres.url_of(TEMPLATE)
    async with feed.relay(url, own_nats.url):
        async with feed.writer(url) as writer:
            await writer.commit("x", "y")
            await writer.wait_until_published()
        await own_postgres.kill()
        await own_postgres.start()
        async with feed.writer(url) as writer:
            await writer.commit("z")
            await writer.wait_until_published()
            await feed.assert_whole(observer, writer)


async def test_marks_that_a_crash_of_postgresql_loses_are_made_again(
    own_postgres: Postgres, own_nats: Nats, observer: Connection
) -> None:
    """Marks do not wait for the disk, so a crash may lose the last ones."""
    await own_postgres.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
    await own_postgres.execute("SELECT pg_reload_conf()")
    url = own_postgres.url_of(TEMPLATE)
    async with feed.relay(url, own_nats.url), feed.writer(url) as writer:
        await feed.wait_until_complete(observer)  # the marks of its build wait for the disk
        await writer.commit(*"abc")
        await writer.wait_until_published()
    await own_postgres.kill()
    await own_postgres.start()
    async with feed.writer(url) as writer:
        assert (await writer.count_pending(), await writer.read_marked_sequence()) == (3, 0)
        async with feed.relay(url, own_nats.url):
            await writer.commit("d")
            await writer.wait_until_published()
            await feed.assert_whole(observer, writer)
