"""The index of records: with the part that is not indexed yet it finds what a full scan finds, always."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from secrets import randbits
from typing import Any

import asyncpg
import pytest

from operations_server.records import segment_builders
from operations_server.records.database import Database
from operations_server.records.event_filter import EventFilter
from operations_server.records.event_reader import EventReader
from operations_server.records.event_tail import EventTail
from operations_server.records.request_filter import RequestFilter
from operations_server.records.request_reader import RequestReader
from operations_server.records.segment_builders import EventSegments, RequestSegments
from operations_server.records.settled import Settled
from operations_server.records.terms import hash_term
from tests.support.harness.changed_record import ALLOW_CHANGES
from tests.support.harness.recorder import CALLERS, COMMANDS, OUTCOMES, TYPES, Recorder
from tests.support.harness.waiting import until

NO_TIME = timedelta()


@dataclass
class Index:
    """Readers and builders on one database, without any time between a commit and its place in the index."""

    url: str
    database: Database
    builders: Database

    def __post_init__(self) -> None:
        self.events, self.requests = EventReader(self.database), RequestReader(self.database, NO_TIME)
        self.settled = Settled(self.database)
        self._segments = (EventSegments(), RequestSegments(NO_TIME))

    async def build(self) -> int:
        """Add the next segment of each kind, as one of several servers."""
        async with self.builders.connect() as driver:
            await driver.execute("SELECT pg_advisory_lock(1)")
            built = [await segments.build(driver, max_age_passed=True) for segments in self._segments]
            await driver.execute("SELECT pg_advisory_unlock(1)")
        return sum(built)

    async def catch_up(self) -> None:
        """Add segments up to what is recorded now, so that the next transactions commit beside them."""
        while await self.build():
            pass

    async def list_events(self, chosen: EventFilter, size: int) -> list[int]:
        """Return the positions of all pages."""
        _, until = await self.settled.find()
        positions, after, is_last = list[int](), chosen.after_position, False
        while not is_last:
            page = await self.events.read_page(chosen, 0 if chosen.stream else after, until, size)
            while chosen.stream and not page.is_last:
                positions += [event.position for event in page.events]
                page = await self.events.read_page(chosen, page.scanned_to, until, size)
            positions += [event.position for event in page.events]
            after, is_last = page.scanned_to, page.is_last
        return positions

    async def list_requests(self, chosen: RequestFilter, size: int) -> list[str]:
        ids, after = list[str](), None
        while True:
            page = await self.requests.read_page(chosen, after, size)
            ids += [request.request_id for request in page.requests]
            if page.position is None:
                return ids
            after = page.position

    async def compare(self, random: Random, rounds: int) -> None:
        """Compare lists of random filters with full scans."""
        events, requests = await self.fetch(ALL_EVENTS), await self.fetch(ALL_REQUESTS)
        for _ in range(rounds):
            chosen, wanted = choose_event_filter(random, events), choose_request_filter(random, requests)
            size = random.choice((7, 50))
            assert await self.list_events(chosen, size) == scan_events(chosen, events), chosen
            assert await self.list_requests(wanted, size) == scan_requests(wanted, requests), wanted

    async def find_missing_terms(self) -> list[str]:
        """Return the ids of indexed events and requests whose segment lacks their term."""
        missing = []
        for kind, order, rows, key in (
            ("event", "position", await self.fetch(ALL_EVENTS), "causation_id"),
            ("request", "recorded_at", await self.fetch(ALL_REQUESTS), "request_id"),
        ):
            segments = await self.fetch(f"SELECT after, until FROM {kind}_segments ORDER BY until")
            terms = {(row[0], row[1]) for row in await self.fetch(f"SELECT term, segment FROM {kind}_terms")}
            for row in rows:
                id_ = str(row[key] if kind == "request" else json.loads(row["metadata"])[key])
                # Not by `after`: the first one begins before all times that Python can express.
                until = next((each["until"] for each in segments if row[order] <= each["until"]), None)
                if until is not None and (hash_term("id", id_), until) not in terms:
                    missing.append(f"{kind} {id_}")
        return missing

    async def fetch(self, statement: str, *values: Any) -> Sequence[Any]:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(ALLOW_CHANGES)
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()


@pytest.fixture
async def index(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Index]:
    monkeypatch.setattr(segment_builders, "SEGMENT", 40)
    index = Index(database_url, Database(database_url), Database(database_url, pool_size=2))
    yield index
    await index.database.close()
    await index.builders.close()


def choose_event_filter(random: Random, events: Sequence[Any]) -> EventFilter:
    """Return a filter of one or more fields, mostly with values that some event has."""
    event = random.choice(events)
    metadata = json.loads(event["metadata"])
    type_ = random.choice(TYPES).DESCRIPTOR
    options: list[dict[str, Any]] = [
        {"type": random.choice((type_.full_name, type_.name))},
        {"correlation_id": metadata["correlation_id"]},
        {"causation_id": metadata["causation_id"]},
        {"stream": event["stream"]},
        {"from_time": event["recorded_at"]},
        {"until_time": random.choice(events)["recorded_at"]},
        {"after_position": event["position"]},
    ]
    chosen = random.sample(options, random.randint(0, 3))
    return EventFilter(**{key: value for option in chosen for key, value in option.items()})


def scan_events(chosen: EventFilter, events: Sequence[Any]) -> list[int]:
    """Return the positions that a full scan selects."""
    selected = []
    for event in events:
        metadata = json.loads(event["metadata"])
        if (
            chosen.stream in ("", event["stream"])
            and (chosen.type in ("", event["type"]) or event["type"].endswith(f".{chosen.type}"))
            and chosen.correlation_id in ("", metadata["correlation_id"])
            and chosen.causation_id in ("", metadata["causation_id"])
            and (chosen.from_time is None or event["recorded_at"] >= chosen.from_time)
            and (chosen.until_time is None or event["recorded_at"] < chosen.until_time)
            and event["position"] > chosen.after_position
        ):
            selected.append(event["position"])
    return selected


def choose_request_filter(random: Random, requests: Sequence[Any]) -> RequestFilter:
    request = random.choice(requests)
    command = random.choice(COMMANDS)
    options: list[dict[str, Any]] = [
        {"request_id": request["request_id"]},
        {"caller": random.choice(CALLERS)},
        {"outcome": random.choice((*OUTCOMES, "REJECTED"))},
        {"stream": request["stream"]},
        {"correlation_id": request["correlation_id"] or str(request["request_id"])},
        {"causation_id": f"cause-{random.randrange(9)}"},
        {"command": random.choice((command, command.rpartition(".")[2]))},
        {"from_time": request["recorded_at"]},
        {"until_time": random.choice(requests)["recorded_at"]},
    ]
    chosen = random.sample(options, random.randint(0, 3))
    return RequestFilter(**{key: value for option in chosen for key, value in option.items()})


def scan_requests(chosen: RequestFilter, requests: Sequence[Any]) -> list[str]:
    selects: Callable[[Any], bool] = lambda row: (  # noqa: E731
        chosen.request_id in (None, row["request_id"])
        and chosen.caller in ("", row["caller"])
        and (
            chosen.outcome in ("", row["outcome"])
            or (chosen.outcome, row["outcome"] != "ACCEPTED") == ("REJECTED", True)
        )
        and chosen.stream in ("", row["stream"])
        and chosen.correlation_id in ("", row["correlation_id"] or str(row["request_id"]))
        and chosen.causation_id in ("", row["causation_id"])
        and (chosen.command in ("", row["type"]) or row["type"].endswith(f".{chosen.command}"))
        and (chosen.from_time is None or row["recorded_at"] >= chosen.from_time)
        and (chosen.until_time is None or row["recorded_at"] < chosen.until_time)
    )
    return [str(row["request_id"]) for row in requests if selects(row)]


ALL_EVENTS = (
    "SELECT position, stream, type, metadata::text AS metadata, recorded_at FROM events ORDER BY position"
)
ALL_REQUESTS = 'SELECT * FROM audit ORDER BY recorded_at DESC, caller COLLATE "C", request_id::text'


@pytest.mark.parametrize("transactions", [25, pytest.param(250, marks=pytest.mark.long)])
async def test_the_index_and_the_rest_are_what_a_full_scan_finds(index: Index, transactions: int) -> None:
    """While transactions commit out of order, two builders add segments and readers read."""
    seed = randbits(32)
    print(f"seed {seed}")
    random = Random(seed)
    recorders = [Recorder(f"r{number}", Random(random.getrandbits(32))) for number in range(5)]
    recording = asyncio.gather(*(recorder.record(index.url, transactions) for recorder in recorders))
    while not recording.done():
        await asyncio.gather(index.catch_up(), index.catch_up())
        events, requests = await index.fetch(ALL_EVENTS), await index.fetch(ALL_REQUESTS)
        if events:
            chosen = choose_event_filter(random, events)
            assert set(await index.list_events(chosen, 50)) >= set(scan_events(chosen, events)), chosen
        if requests:
            wanted = choose_request_filter(random, requests)
            ids = await index.list_requests(wanted, 50)
            assert len(ids) == len(set(ids)), wanted
            assert set(ids) >= set(scan_requests(wanted, requests)), wanted
    await recording
    assert await index.find_missing_terms() == []
    await index.compare(random, 15)
    assert len(await index.fetch("SELECT FROM event_segments")) > 2
    assert len(await index.fetch("SELECT FROM request_segments")) > 2


async def test_without_an_index_everything_is_found_too(index: Index) -> None:
    """For example after an upgrade, when the tables of the index are empty."""
    seed = randbits(32)
    print(f"seed {seed}")
    random = Random(seed)
    await Recorder("r", random).record(index.url, 20)
    old = "UPDATE audit SET recorded_at = recorded_at - interval '40 days' WHERE caller = 'alice'"
    await index.fetch(old)
    index.requests = RequestReader(index.database)
    await index.compare(random, 20)


async def test_a_tail_sends_every_event_once_while_transactions_commit_out_of_order(index: Index) -> None:
    seed = randbits(32)
    print(f"seed {seed}")
    random = Random(seed)
    stopping = asyncio.Event()
    tail = EventTail(index.events, index.settled, stopping)
    sent = list[int]()

    async def follow() -> None:
        """Follow, and resume at a random moment behind the last position."""
        position = 0
        while True:
            count = random.randint(1, 5)
            async for page in tail.tail(EventFilter(), position):
                sent.extend(event.position for event in page.page.events)
                position, count = page.position, count - 1
                if not count:
                    break

    following = asyncio.create_task(follow())
    recorders = [Recorder(f"r{number}", Random(random.getrandbits(32))) for number in range(5)]
    await asyncio.gather(*(recorder.record(index.url, 40) for recorder in recorders))
    expected = [row["position"] for row in await index.fetch(ALL_EVENTS)]
    await until(lambda: len(sent) >= len(expected), 20)
    following.cancel()
    assert sent == expected
    tail.close()
