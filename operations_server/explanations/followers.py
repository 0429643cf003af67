"""Finds the effects of events: views, sagas with their steps, and the aggregates that these changed."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from diptych.operations.v1.explanation_pb2 import Explanation

from contracts import streams
from contracts.envelope import RecordedEvent
from operations_server.explanations import saga_words
from operations_server.explanations.chain import Chain, Entry
from operations_server.explanations.command_words import (
    EventWords,
    create_accepted_entry,
    create_answer_entry,
)
from operations_server.explanations.record_reader import Answer, RecordReader, RequestKey, StoredEvent
from operations_server.explanations.saga_facts import SagaFactReader, SagaFacts
from operations_server.explanations.view_words import create_view_entry
from operations_server.explanations.views import UNREADABLE, ViewReader, ViewState

MAX_INSTANCES = 10
"""Instances of sagas that are followed from one aggregate."""
MAX_TARGETS = 10
"""Aggregates changed by steps whose own sagas and parked views are looked at."""


@dataclass
class Followed:
    """The sagas and parked views that were found, for summaries and causes."""

    instances: list[SagaFacts] = field(default_factory=list)
    """Of the sagas that receive the subject's own events."""
    parked: list[ViewState] = field(default_factory=list)
    step_keys: set[RequestKey] = field(default_factory=set)
    """Of the commands that these instances have sent."""


class Follower:
    """Adds the effects of events to chains.

    Args:
        records: reads streams and answers.
        views: reads views.
        sagas: reads instances.
        words: describes events.
    """

    def __init__(
        self, records: RecordReader, views: ViewReader, sagas: SagaFactReader, words: EventWords
    ) -> None:
        self._records = records
        self._views = views
        self._sagas = sagas
        self._words = words

    def add_events(self, chain: Chain, events: Collection[StoredEvent], depth: int) -> None:
        """Add events, and the commands that their metadata names."""
        for stored in events:
            if any(stored.key):
                chain.add(("command", *stored.key), create_accepted_entry(stored, depth))
            chain.add(("event", stored.event.id), self._words.create_entry(stored, depth))

    async def add_effects_elsewhere(
        self, chain: Chain, answers: Collection[Answer], known: Collection[str], depth: int
    ) -> None:
        """Add the events of accepted commands in other streams than the known ones."""
        elsewhere = [
            replace(each, versions={name: at for name, at in each.versions.items() if name not in known})
            for each in answers
        ]
        self.add_events(chain, await self._records.read_events_of(elsewhere), depth)

    async def add_views(self, chain: Chain, stream: str, latest: int, now: datetime, found: Followed) -> None:
        """Add the state of each view of a stream."""
        states = await self._read_views(chain, stream, now)
        for state in states:
            entry = create_view_entry(state, streams.aggregate_id(stream), latest, now=now, depth=0)
            chain.add_note(("view", state.projection, stream), entry)
        found.parked += [each for each in states if each.parked_error]

    async def _read_views(self, chain: Chain, stream: str, now: datetime) -> Sequence[ViewState]:
        """Return the views of a stream; after a failure none, and an entry says so."""
        if chain.views_failed:
            return ()
        try:
            return await self._views.read(stream)
        except UNREADABLE as error:
            chain.views_failed = True
            text = f"the views cannot be read from Redis: {error!r}"
            chain.add_note("views", Entry(now, Explanation.KIND_VIEW, text))
            return ()

    async def follow(
        self, chain: Chain, events: Sequence[StoredEvent], now: datetime, since: datetime | None = None
    ) -> Followed:
        """Add the sagas that receive events, and the effects of their steps.

        Args:
            chain: the entries.
            events: of the subject.
            now: by PostgreSQL's clock.
            since: only steps that were decided at this time or later; None for all.
        """
        found = Followed()
        latest_first = [each.event for each in reversed(events)]
        keys = self._sagas.find_instances(latest_first)
        chain.omitted += max(0, len(keys) - MAX_INSTANCES)
        callers = await self._sagas.read_callers() if keys else {}
        known = {each.event.stream for each in events}
        targets = dict[str, int]()
        for key in keys[:MAX_INSTANCES]:
            if facts := await self._sagas.read(key):
                found.instances.append(facts)
                found.step_keys |= self._list_step_keys(facts, callers)
                targets |= await self._follow_instance(chain, facts, callers, known, now, since)
        await self._add_targets(chain, targets, now)
        return found

    async def list_waits(self, event: RecordedEvent, found: Followed) -> list[str]:
        """Return what the last event of a stream waits for: a relay, or process managers."""
        if not await self._records.is_published(event.position):
            return [f"version {event.version} is not published yet: see the outbox in diptych status"]
        late = self._sagas.list_late(event, found.instances)
        return [f"{saga} has not received version {event.version} yet" for saga in late]

    def _list_step_keys(self, facts: SagaFacts, callers: dict[str, str]) -> set[RequestKey]:
        caller = callers.get(facts.key[0], "")
        return {(caller, str(step.request_id)) for step in facts.details.steps}

    async def _follow_instance(
        self,
        chain: Chain,
        facts: SagaFacts,
        callers: dict[str, str],
        known: Collection[str],
        now: datetime,
        since: datetime | None,
    ) -> dict[str, int]:
        """Add an instance; return the versions of the streams that its steps have changed first."""
        caller, keys = callers.get(facts.key[0], ""), list[RequestKey]()
        for step, entry in saga_words.list_step_entries(facts, chain.until, depth=1):
            if since is None or step.decided_at >= since:
                chain.add(("step", *facts.key, step.step, step.attempt), entry)
                keys.append((caller, str(step.request_id)))
        for number, entry in enumerate(saga_words.list_act_entries(facts, depth=1)):
            chain.add(("act", *facts.key, number), entry)
        if chain.until is None:
            self._add_state(chain, facts, now, depth=1)
        return await self._add_step_effects(chain, keys, known)

    def _add_state(self, chain: Chain, facts: SagaFacts, now: datetime, depth: int) -> None:
        for name, entry in saga_words.list_timer_entries(facts, depth):
            chain.add_note(("timer", *facts.key, name), entry)
        chain.add_note(("state", *facts.key), saga_words.create_state_entry(facts, now, depth))

    async def _add_step_effects(
        self, chain: Chain, keys: Sequence[RequestKey], known: Collection[str]
    ) -> dict[str, int]:
        answers = await self._records.read_answers(keys)
        accepted = [each for each in answers.values() if each.is_accepted]
        self.add_events(chain, await self._records.read_events_of(accepted), depth=2)
        for answer in answers.values():  # rejected ones, and those that have changed nothing
            chain.add(("command", *answer.key), create_answer_entry(answer, depth=2))
        firsts = (next(iter(each.versions.items()), None) for each in accepted)
        return {stream: version for stream, version in filter(None, firsts) if stream not in known}

    async def _add_targets(self, chain: Chain, targets: dict[str, int], now: datetime) -> None:
        """Add the open sagas, timers and parked views of the aggregates that steps have changed."""
        if chain.until is not None:
            return
        chain.omitted += max(0, len(targets) - MAX_TARGETS)
        chosen = list(targets.items())[-MAX_TARGETS:]
        for stream, version in chosen:
            for key in self._sagas.list_own(stream):
                facts = await self._sagas.read(key)
                if facts and not facts.details.row.ended:
                    self._add_state(chain, facts, now, depth=3)
            for state in await self._read_views(chain, stream, now):
                if state.parked_error:
                    id_ = streams.aggregate_id(stream)
                    entry = create_view_entry(state, id_, version, now=now, depth=2)
                    chain.add_note(("view", state.projection, stream), entry)
