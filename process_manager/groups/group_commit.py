"""Group commit: inputs that arrive while a group is committed share the next one.

How it works:

- `execute` queues an input and waits for its result. A task takes what is waiting, up to MAX_GROUP_SIZE
  inputs, reads the rows that they need in one statement and writes the changes in another.
- Inputs that share an instance, a stream or a feed form a unit of work, in their order of arrival. A unit
  that another manager has met writes nothing, and joins a later group; the others are committed.
- An input that fails in the saga's code fails alone. If PostgreSQL refuses the group, its halves run apart,
  until the faulty input fails alone. From then on inputs of the same instances and feeds run by themselves
  for SUSPICION seconds, one after each group, so that a faulty saga does not divide every group.
- A lock is never a refusal: a unit that meets one has lost a race. If a whole table is locked, the units that
  use other tables are written by themselves.
- The end of a group without an answer, for instance a lost connection, fails its inputs: their callers repeat
  them, and each takes effect once.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, TypeVar

import asyncpg

from process_manager.groups.inputs import EventBatch, ParkedSlice, QueuedInput
from process_manager.groups.instance import Instance
from process_manager.groups.queued_inputs import (
    AppliedUnit,
    Queued,
    apply_inputs,
    divide_by_tables,
    list_contended_feeds,
    list_keys,
    note_lost_race,
)
from process_manager.groups.refused_events import find_refused
from process_manager.groups.unit_of_work import UnitOfWork, divide
from process_manager.metrics import GROUP_SIZE, GROUP_WAIT
from process_manager.postgres.group_store import LOCKED, GroupStore, is_outage
from process_manager.saga import Saga
from runtime.backoff import compute_pause

MAX_GROUP_SIZE = 256
"""Inputs in one group; a batch of events counts as their number."""
MAX_RERUNS = 3
"""Times that a group runs again after an error that another one has caused."""
INITIAL_PAUSE, MAX_PAUSE = 0.002, 0.1
"""Seconds until an input that has lost a race joins a group again."""
SUSPICION = 30.0
"""Seconds in which inputs of an instance or a feed run by themselves after one that PostgreSQL refused."""

RERUN = (
    asyncpg.UniqueViolationError,  # another manager has begun the same instance or feed
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)

R = TypeVar("R")


class RaceLost(Exception):
    """Other transactions have locked or changed the rows of an input again and again."""


class GroupCommit:
    """Delivers inputs in groups.

    Args:
        store: reads and writes the rows.
        get_sagas: returns the sagas by name.
        on_commit: called with the instances that a unit has changed, after its commit.
    """

    def __init__(
        self,
        store: GroupStore,
        get_sagas: Callable[[], Mapping[str, Saga[Any]]],
        on_commit: Callable[[Collection[Instance]], None],
    ) -> None:
        self._store = store
        self._get_sagas = get_sagas
        self._on_commit = on_commit
        self._queue: deque[Queued] = deque()
        self._suspected: deque[Queued] = deque()
        """Inputs that run by themselves."""
        self._suspects: dict[Hashable, float] = {}
        """Keys of instances and feeds, and until when they are suspected."""
        self._task: asyncio.Task[None] | None = None

    async def execute(self, input_: QueuedInput[R]) -> R:
        """Return the result of an input once it is committed.

        Raises:
            RaceLost: other transactions keep its rows.
            Exception: it failed; nothing has changed, unless the connection was lost.
        """
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._put(Queued(input_, result))
        return await result

    def _put(self, *inputs: Queued) -> None:
        for each in inputs:
            (self._suspected if self._is_suspect(each.input) else self._queue).append(each)
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._queue or self._suspected:
                if group := self._take_group():
                    GROUP_SIZE.record(sum(each.input.size for each in group))
                    GROUP_WAIT.record(monotonic() - min(each.queued_at for each in group))
                    await self._run_group(group)
                if self._suspected:
                    await self._run_group([self._suspected.popleft()])
        finally:
            self._task = None

    def _take_group(self) -> list[Queued]:
        group, size = list[Queued](), 0
        while self._queue and size < MAX_GROUP_SIZE:
            if self._queue[0].input.runs_alone:
                return group or [self._queue.popleft()]
            queued = self._queue.popleft()
            if not queued.result.done():  # its caller may have gone
                group.append(queued)
                size += queued.input.size
        return group

    async def _run_group(self, group: Sequence[Queued]) -> None:
        """Commit inputs, or fail them."""
        error: Exception | None = None
        for _ in range(1 + MAX_RERUNS):
            try:
                if lost := await self._commit(group):
                    self._put_off(await self._commit(lost))
                return
            except RERUN as conflict:
                error = conflict
                for each in group:
                    each.needs_checkpoint = True
            except Exception as failure:
                error = failure
                break
        try:
            await self._divide(group, error or RaceLost())
        except Exception as failure:  # of the search for the faulty input
            for each in group:
                each.fail(failure)

    async def _divide(self, group: Sequence[Queued], error: Exception) -> None:
        """Run the halves of a group that PostgreSQL refused."""
        if is_outage(error):
            for each in group:
                each.fail(error)
        elif len(group) > 1:
            middle = len(group) // 2
            await self._run_group(group[:middle])
            await self._run_group(group[middle:])
        elif not await self._refuse_instances(group[0]):
            group[0].fail(error)
            until = monotonic() + SUSPICION
            self._suspects.update(dict.fromkeys(list_keys(group[0].input), until))

    async def _refuse_instances(self, queued: Queued) -> bool:
        """Deliver events without the reactions that PostgreSQL refuses; return whether it did.

        The instances of these reactions have a failed input, as if their code had failed.
        """
        events = queued.input
        if not isinstance(events, EventBatch | ParkedSlice) or events.refused:
            return False
        refused = await find_refused(self._store, self._get_sagas(), events)
        if refused:
            queued.input = replace(events, refused=refused)
            await self._run_group([queued])
        return bool(refused)

    def _is_suspect(self, input_: QueuedInput[Any]) -> bool:
        if not self._suspects:
            return False
        now = monotonic()
        self._suspects = {key: until for key, until in self._suspects.items() if until > now}
        return any(key in self._suspects for key in list_keys(input_))

    async def _commit(self, group: Sequence[Queued]) -> list[Queued]:
        """Commit inputs in one transaction; return those that have lost a race, in their order."""
        group = [each for each in group if not each.result.done()]
        sagas = self._get_sagas()
        rows = await self._store.read(sagas, [each.input for each in group], list_contended_feeds(group))
        members = {id(each.input): each for each in group}
        units = [
            apply_inputs(UnitOfWork(sagas, rows), [members[id(each)] for each in inputs])
            for inputs in divide([each.input for each in group])
        ]
        try:
            lost = await self._write(units)
        except LOCKED:
            lost = [each for part in divide_by_tables(units) for each in await self._try_to_write(part)]
        left = {id(queued) for applied in lost for queued, _ in applied.results}
        return [note_lost_race(each) for each in group if id(each) in left]

    async def _try_to_write(self, units: Sequence[AppliedUnit]) -> Sequence[AppliedUnit]:
        """Write units that use the same tables; return those that have lost a race, all if one is locked."""
        try:
            return await self._write(units)
        except LOCKED:
            return units

    async def _write(self, units: Sequence[AppliedUnit]) -> Sequence[AppliedUnit]:
        """Write units, and complete their inputs; return those that have lost a race."""
        to_write = [each for each in units if each.unit.has_changes]
        written = await self._store.write([each.unit for each in to_write]) if to_write else set()
        lost = {id(each): each for number, each in enumerate(to_write) if number not in written}
        for applied in units:
            if id(applied) not in lost:
                self._on_commit(applied.unit.saved.values())
                for queued, result in applied.results:
                    queued.complete(result)
        return list(lost.values())

    def _put_off(self, lost: Sequence[Queued]) -> None:
        """Let inputs that have lost a race join a later group, in their order."""
        for each in lost:
            if each.lost_races > each.input.max_lost_races:
                each.fail(RaceLost("other transactions have locked or changed its rows again and again"))
        if left := [each for each in lost if not each.result.done()]:
            pause = compute_pause(min(each.lost_races for each in left), INITIAL_PAUSE, MAX_PAUSE)
            asyncio.get_running_loop().call_later(pause, self._put, *left)
