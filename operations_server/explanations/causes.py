"""Follows a command to its cause: an event, the step of a saga, or another request."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from operations_server.explanations.audit import AuditedRequest, AuditReader
from operations_server.explanations.chain import Chain
from operations_server.explanations.command_words import (
    EventWords,
    create_accepted_entry,
    create_request_entry,
)
from operations_server.explanations.record_reader import RecordReader, RequestKey, StoredEvent
from operations_server.explanations.saga_facts import InstanceKey, SagaFactReader, SagaFacts
from operations_server.explanations.saga_words import list_step_entries

MAX_CAUSES = 6
"""Commands whose causes are looked up: the first and the latest ones of a subject."""
MAX_LINKS = 6
"""Commands in a row, each caused by the next, whose causes are looked up."""
MAX_INSTANCES = 5
"""Instances that are searched for the step of a command."""

_EVENT_ID = re.compile(r"(.+)@([1-9][0-9]{0,17})")


class CauseFinder:
    """Adds the causes of commands to chains.

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

    async def add_causes(self, chain: Chain, sent: Sequence[tuple[RequestKey, datetime]]) -> None:
        """Add the causes of commands, those of the first and the latest ones if there are many.

        Args:
            chain: the entries.
            sent: the commands, and when they were recorded.
        """
        half = MAX_CAUSES // 2
        for key, at in sent if len(sent) <= MAX_CAUSES else [*sent[:half], *sent[-half:]]:
            if request := await self._audit.find_request(key, at):
                await self.add_cause(chain, request)

    async def add_cause(self, chain: Chain, request: AuditedRequest) -> None:
        """Add the cause of a command, as its causation id names it, and the causes of that."""
        next_request: AuditedRequest | None = request
        for link in range(1, MAX_LINKS + 1):
            if next_request is not None:
                next_request = await self._add_link(chain, next_request, depth=-link)

    async def _add_link(self, chain: Chain, request: AuditedRequest, depth: int) -> AuditedRequest | None:
        """Add the cause of one command; return the command that caused it, None if that is not known."""
        cause, event = request.causation_id or "", None
        if event_id := _EVENT_ID.fullmatch(cause):
            event = await self._records.read_event(event_id[1], int(event_id[2]))
            for key in self._sagas.find_instances([event.event])[:MAX_INSTANCES] if event else ():
                if await self._add_step(chain, key, request, depth):
                    break
        elif "/" in cause:
            saga, _, id_ = cause.partition("/")
            facts = await self._add_step(chain, (saga, id_), request, depth)
            event = await self._find_last_event(facts, request) if facts else None
        elif cause:
            return await self._add_request(chain, cause, request.recorded_at, depth)
        if event is None:
            return None
        chain.add(("event", event.event.id), self._words.create_entry(event, depth))
        if any(event.key):
            chain.add(("command", *event.key), create_accepted_entry(event, depth))
        return await self._audit.find_request(event.key, event.event.recorded_at)

    async def _add_request(
        self, chain: Chain, request_id: str, until: datetime, depth: int
    ) -> AuditedRequest | None:
        """Add the commands with an id, as a caller names them; return one if it is the only one."""
        found = (await self._audit.find_requests(request_id, until)).requests
        for each in found:
            chain.add(("command", *each.key), create_request_entry(each, None, depth))
        return found[0] if len(found) == 1 else None

    async def _add_step(
        self, chain: Chain, key: InstanceKey, request: AuditedRequest, depth: int
    ) -> SagaFacts | None:
        """Add the step that sent a command; return its instance, None if this one has no such step."""
        facts = await self._sagas.read(key)
        for step, entry in list_step_entries(facts, chain.until, depth) if facts else ():
            if facts is not None and str(step.request_id) == request.request_id:
                reference = facts.own_stream or entry.reference
                chain.add(("step", *facts.key, step.step, step.attempt), replace(entry, reference=reference))
                return facts
        return None

    async def _find_last_event(self, facts: SagaFacts, request: AuditedRequest) -> StoredEvent | None:
        """Return the last event of an instance's own stream before a command.

        Earlier releases did not record the input that caused a step.
        """
        if not (stream := facts.own_stream):
            return None
        latest = (await self._records.read_versions([stream])).get(stream, 0)
        version = await self._records.find_version(stream, latest, request.recorded_at)
        return await self._records.read_event(stream, version) if version else None
