"""Follows a command to what caused it: an event, the step of a saga, or another request."""

import re
from collections.abc import Sequence
from dataclasses import replace

from operations_server.explanations.audit import AuditedRequest, AuditReader
from operations_server.explanations.chain import Chain
from operations_server.explanations.command_words import (
    EventWords,
    create_accepted_entry,
    create_request_entry,
)
from operations_server.explanations.records import RecordReader, RequestKey, StoredEvent
from operations_server.explanations.saga_facts import InstanceKey, SagaFactReader, SagaFacts
from operations_server.explanations.saga_words import list_step_entries

MAX_CAUSES = 6
"""Commands whose causes are looked up: the first and the latest ones of a subject."""
MAX_INSTANCES = 5
"""Instances that are searched for the step of a command."""

_EVENT_ID = re.compile(r"(.+)@([1-9][0-9]{0,17})")


class CauseFinder:
    """Adds to chains what led to commands.

    Args:
        records: reads streams.
        audit: finds the causation ids of commands.
        sagas: finds the steps that sent commands.
        words: describes events.
    """

    def __init__(
        self, records: RecordReader, audit: AuditReader, sagas: SagaFactReader, words: EventWords
    ) -> None:
        self._records = records
        self._audit = audit
        self._sagas = sagas
        self._words = words

    async def add_causes(self, chain: Chain, keys: Sequence[RequestKey]) -> None:
        """Add the causes of commands, those of the first and the latest ones if there are many."""
        half = MAX_CAUSES // 2
        chosen = keys if len(keys) <= MAX_CAUSES else [*keys[:half], *keys[-half:]]
        for caller, request_id in chosen:
            found = await self._audit.find_requests(request_id)
            for request in (each for each in found if each.caller == caller):
                await self.add_cause(chain, request)

    async def add_cause(self, chain: Chain, request: AuditedRequest) -> None:
        """Add the cause of one command, as its causation id names it."""
        cause = request.causation_id or ""
        if event_id := _EVENT_ID.fullmatch(cause):
            await self._add_event(chain, event_id[1], int(event_id[2]), request)
        elif "/" in cause:
            saga, _, id_ = cause.partition("/")
            await self._add_step(chain, (saga, id_), request, with_event=True)
        elif cause:
            for each in await self._audit.find_requests(cause):
                chain.add(("command", *each.key), create_request_entry(each, None, depth=-1))

    async def _add_event(self, chain: Chain, stream: str, version: int, request: AuditedRequest) -> None:
        stored = await self._records.read_event(stream, version)
        if stored is None:
            return
        self._add_stored(chain, stored)
        for key in self._sagas.find_instances([stored.event])[:MAX_INSTANCES]:
            if await self._add_step(chain, key, request, with_event=False):
                return

    def _add_stored(self, chain: Chain, stored: StoredEvent) -> None:
        chain.add(("event", stored.event.id), self._words.create_entry(stored, depth=-1))
        if any(stored.key):
            chain.add(("command", *stored.key), create_accepted_entry(stored, depth=-1))

    async def _add_step(
        self, chain: Chain, key: InstanceKey, request: AuditedRequest, *, with_event: bool
    ) -> bool:
        """Add the step that sent a command; return False if this instance has none.

        Args:
            chain: the entries.
            key: the instance.
            request: the command.
            with_event: whether to add the last event of the instance's own stream before the step, too.
        """
        facts = await self._sagas.read(key)
        for step, entry in list_step_entries(facts, chain.until, depth=-1) if facts else ():
            if facts is None or str(step.request_id) != request.request_id:
                continue
            own_stream = facts.own_stream
            reference = entry if not own_stream else replace(entry, reference=own_stream)
            chain.add(("step", *facts.key, step.step, step.attempt), reference)
            if with_event and own_stream:
                await self._add_last_event(chain, facts, request)
            return True
        return False

    async def _add_last_event(self, chain: Chain, facts: SagaFacts, request: AuditedRequest) -> None:
        stream = facts.own_stream
        latest = (await self._records.read_versions([stream])).get(stream, 0)
        version = await self._records.find_version(stream, latest, request.recorded_at)
        # The saga had received its events up to here when it decided on the step, or one more.
        stored = await self._records.read_event(stream, version) if version else None
        if stored is not None:
            self._add_stored(chain, stored)
