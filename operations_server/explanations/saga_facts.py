"""Finds the instances of sagas around an aggregate, and reads them with a bounded number of their steps."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts import streams
from contracts.envelope import RecordedEvent
from process_manager.postgres.schema import CALLERS
from process_manager.queries.saga_reader import SagaReader
from process_manager.queries.saga_records import SagaDetails
from process_manager.saga import Saga

MAX_STEPS = 100
"""Steps of an instance that are read, the latest; as many of its operators' actions."""

InstanceKey = tuple[str, str]
"""The saga's name and the instance's id."""


@dataclass(frozen=True, slots=True)
class SagaFacts:
    """An instance of a saga."""

    details: SagaDetails
    own_stream: str
    """Empty if the saga follows none whose id is the instance's."""

    @property
    def key(self) -> InstanceKey:
        return self.details.row.saga, self.details.row.id


class SagaFactReader:
    """Reads instances of sagas.

    Args:
        database: of the process manager.
        sagas: the definitions of all sagas.
    """

    def __init__(self, database: AsyncEngine, sagas: Iterable[Saga[Any]]) -> None:
        self._database = database
        self._sagas = {saga.name: saga for saga in sagas}
        self._reader = SagaReader(database, self._sagas.values())

    async def read(self, key: InstanceKey) -> SagaFacts | None:
        """Return an instance, also one that begins at a deadline; None if there is none."""
        saga = self._sagas.get(key[0])
        details = await self._reader.find(*key, most=MAX_STEPS)
        if details is None:
            return None
        own = streams.stream_name(saga.own_type, key[1]) if saga and saga.own_type else ""
        return SagaFacts(details, own)

    async def read_callers(self) -> dict[str, str]:
        """Return the subject with which the steps of each saga are sent, by saga."""
        async with self._database.connect() as connection:
            rows = await connection.execute(select(CALLERS.c.saga, CALLERS.c.subject))
            return {row.saga: row.subject for row in rows}

    def find_instances(self, events: Collection[RecordedEvent]) -> Sequence[InstanceKey]:
        """Return the instances that receive events, each once, those of own streams first."""
        own, keyed = dict[InstanceKey, None](), dict[InstanceKey, None]()
        for event in events:
            for saga in self._sagas.values():
                for subscription in saga.subscribes_to:
                    if subscription.stream_type != streams.stream_type(event.stream):
                        continue
                    if subscription.key is None:
                        own[saga.name, streams.aggregate_id(event.stream)] = None
                    elif id_ := _find_keyed(subscription, event):
                        keyed[saga.name, id_] = None
        return list(own | keyed)

    def list_late(self, event: RecordedEvent, instances: Iterable[SagaFacts]) -> list[str]:
        """Return the names of the sagas that have not received the last event of a stream.

        Args:
            event: the last one.
            instances: of all sagas that follow the stream.
        """
        rows = {facts.key: facts.details.row for facts in instances}
        late = []
        for name, id_ in self.list_own(event.stream):
            saga, row = self._sagas[name], rows.get((name, id_))
            if row is None:  # it has not begun; some begin at a deadline, or pass over earlier events
                is_late = saga.deadline is None and saga.begins == "first_event"
            else:
                has_stopped = row.failed_input or row.unreadable or row.ended
                is_late = row.version < event.version and not has_stopped
            if is_late:
                late.append(name)
        return late

    def list_own(self, stream: str) -> list[InstanceKey]:
        """Return the instances with the id of a stream's aggregate, of the sagas that follow such streams."""
        type_, id_ = streams.stream_type(stream), streams.aggregate_id(stream)
        return [(saga.name, id_) for saga in self._sagas.values() if saga.own_type == type_]


def _find_keyed(subscription: Any, event: RecordedEvent) -> str:
    try:
        return str(subscription.find_instance(event))
    except Exception:  # it cannot be decoded: the sagas say so themselves
        return ""
