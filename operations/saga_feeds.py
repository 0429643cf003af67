"""The feeds of sagas: parked streams, beginnings, and deadlines to come."""

from collections.abc import Mapping, Sequence
from typing import Any

from process_manager.deadlines.reader import count_deadlines
from process_manager.postgres.store import SagaStore
from process_manager.queries.feed_reader import FeedReader
from process_manager.queries.saga_reader import SagaReader
from process_manager.saga import Saga
from runtime.process.contexts import choose_contexts, load_parts
from runtime.process.settings import Settings

Fact = Mapping[str, object]


def load_sagas(settings: Settings) -> list[Saga[Any]]:
    """Return the sagas of the chosen contexts.

    Raises:
        StartError: a context is unknown or invalid.
    """
    return load_parts(choose_contexts(settings), "sagas", "SAGAS", Saga)


async def read_feeds(settings: Settings) -> list[Fact]:
    """Return a fact for each parked stream, each beginning, each kind of deadline and each unknown saga."""
    names = [saga.name for saga in load_sagas(settings)]
    store = SagaStore(settings.database_url)
    try:
        feeds = FeedReader(store.engine)
        facts = [*await _read_parked(feeds, names), *await _read_beginnings(feeds, names)]
        for name, each in sorted((await count_deadlines(store.engine, names)).items()):
            facts.append({"saga": name, "deadlines": each.count, "next_at": each.next_at.isoformat()})
        counts = await SagaReader(store.engine).count_open()
        return facts + [
            {"saga": name, "open_without_context": counts[name].open}
            for name in sorted(counts.keys() - names)
        ]
    finally:
        await store.close()


async def _read_parked(feeds: FeedReader, names: Sequence[str]) -> list[Fact]:
    return [
        {
            "saga": row.saga,
            "parked_stream": row.stream,
            "version": row.version,
            "since": row.since.isoformat(),
            "error": row.error,
        }
        for row in await feeds.read_parked_streams(names)
    ]


async def _read_beginnings(feeds: FeedReader, names: Sequence[str]) -> list[Fact]:
    beginnings = await feeds.read_beginnings()
    return [
        {"saga": name, "passes_over_events_before": beginnings[name].isoformat()}
        for name in names
        if name in beginnings
    ]


def describe_fact(fact: Fact) -> str:
    """Return a fact in a sentence."""
    match fact:
        case {"saga": saga, "parked_stream": stream, "version": version, "since": since, "error": error}:
            cause = error or "its events are read"
            return f"{saga} has parked {stream} at version {version} since {since}: {cause}"
        case {"saga": saga, "passes_over_events_before": time}:
            return f"{saga} passes over events recorded before {time}"
        case {"saga": saga, "deadlines": count, "next_at": time}:
            return f"{saga} has {count} deadlines to come, the next one at {time}"
        case {"saga": saga, "open_without_context": count}:
            return f"{saga} has {count} open, but no chosen context has this saga"
    return str(dict(fact))
