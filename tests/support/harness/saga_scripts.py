"""Random inputs of sagas in rounds, delivered one by one or in groups, and the rows that result."""

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from contracts.envelope import RecordedEvent
from process_manager.dispatch.step_client import StepReply
from process_manager.engine import list_successive
from process_manager.groups.delivery import Slice
from process_manager.groups.group_commit import GroupCommit
from process_manager.groups.inputs import EventBatch, ParkedSlice, QueuedInput
from process_manager.groups.instance_inputs import (
    Cancellation,
    ParkFailed,
    Reply,
    Retry,
    RowInspection,
    TimerFiring,
)
from process_manager.postgres.due_work import NO_CHECKPOINT, Checkpoint, DueStep, DueTimer, Feed
from process_manager.saga import Saga
from tests.support.harness.account_watch import ACCOUNT_WATCH, BROKEN, BROKEN_KEY
from tests.support.harness.saga_run import SagaRun, paid, written
from tests.support.ledger.sagas import COLLECTION
from tests.support.ledger.stubs import commands

SAGAS: Sequence[Saga[Any]] = (COLLECTION, ACCOUNT_WATCH)
FEEDS = [Feed(saga.name, each.stream_type, 0) for saga in SAGAS for each in saga.subscribes_to]
ACCOUNTS, CHEQUES = [f"a-{n}" for n in range(4)], [f"c-{n}" for n in range(6)]
ROWS = {
    "sagas": "SELECT saga, id, version, other_streams::text,"
    " coalesce(state -> 0, state) - 'written_at' AS state, status, ended, waiting_for, blocked_reason,"
    " failed_input, unreadable, due_at IS NULL FROM sagas ORDER BY saga, id",
    "saga_steps": "SELECT saga, id, step, attempt, number, request_id, outcome, tries, answered_at IS NULL"
    " FROM saga_steps ORDER BY 1, 2, 3, 4",
    "saga_timers": "SELECT saga, id, name, stopped_at IS NULL, postponed_to IS NULL FROM saga_timers"
    " ORDER BY 1, 2, 3",
    "saga_parked_streams": "SELECT saga, stream, version, latest, error FROM saga_parked_streams"
    " ORDER BY 1, 2",
    "saga_operator_actions": "SELECT saga, id, action, reason, operator FROM saga_operator_actions"
    " ORDER BY saga, id, action, reason",
    "saga_checkpoints": "SELECT saga, stream_type, partition, epoch, sequence FROM saga_checkpoints"
    " ORDER BY 1, 2, 3",
}
"""The rows without their times, which depend on the moment."""

CLEAR = f"TRUNCATE {', '.join(ROWS)}"
Prepare = Callable[["World"], QueuedInput[Any] | None]
"""Returns an input, as the rows at the beginning of its round make it; None if they permit none."""


@dataclass
class World:
    """The rows on which a round is prepared."""

    steps: dict[tuple[str, str, str, int], DueStep]
    timers: dict[tuple[str, str, str], DueTimer]
    parked: dict[tuple[str, str], int]
    stream_events: Sequence[RecordedEvent]


@dataclass
class Round:
    """Inputs in their order of arrival, the events until then, and a change of rows before them."""

    prepared: list[Prepare]
    stream_events: list[RecordedEvent]
    delivered: list[RecordedEvent]
    change: str = ""


@dataclass
class Script:
    """Writes rounds of random inputs, and keeps what the streams and checkpoints have become.

    Args:
        chance: decides.
    """

    chance: random.Random
    events: list[RecordedEvent] = field(default_factory=list)
    checkpoints: dict[Feed, Checkpoint] = field(default_factory=dict)
    delivered: list[RecordedEvent] = field(default_factory=list)
    """Those that feeds have brought to the account watch, except those behind a later one of their stream."""

    def write_round(self) -> Round:
        kinds = [self._deliver, self._reply, self._fire, self._retry, self._abort, self._replay, self._park]
        weights = [6, 5, 2, 1, 1, 3, 1]
        inputs = [make() for make in self.chance.choices(kinds, weights, k=self.chance.randint(2, 12))]
        if self.chance.random() < 0.3:
            inputs.append(self._inspect())
        return Round(inputs, list(self.events), list(self.delivered), self._write_change())

    def _write_change(self) -> str:
        """Return a statement that makes rows unreadable or readable."""
        saga, id_ = self._choose_instance()
        is_array = "jsonb_typeof(state) = 'array'"
        unreadable = (
            f"UPDATE sagas SET state = jsonb_build_array(state)"
            f" WHERE saga = '{saga}' AND id = '{id_}' AND NOT {is_array}"
        )
        readable = f"UPDATE sagas SET state = state -> 0 WHERE {is_array}"
        return self.chance.choices(["", unreadable, readable], [6, 1, 1])[0]

    def _deliver(self) -> Prepare:
        feed = self.chance.choice(FEEDS)
        saga = next(saga for saga in SAGAS if saga.name == feed.saga)
        streams = ACCOUNTS if feed.stream_type.endswith("account") else CHEQUES
        delivered = []
        for _ in range(self.chance.randint(1, 4)):
            event = self._record(feed.stream_type, self.chance.choice(streams))
            if self.chance.random() < 0.85:  # otherwise a gap
                delivered.append(event)
        repeated = [each for each in self.events if each.stream.startswith(feed.stream_type)]
        delivered += self.chance.sample(repeated, k=self.chance.choice([0, 0, 1]) if repeated else 0)
        if not delivered:
            delivered = repeated[-1:]
        delivered.sort(key=lambda event: event.version)
        old = self.checkpoints.get(feed, NO_CHECKPOINT)
        new = ("epoch", old[1] + 1)
        if self.chance.random() < 0.1:  # another manager was faster
            old = ("epoch", 10_000)
        else:
            self.checkpoints[feed] = new
            if saga is ACCOUNT_WATCH:
                self._note_delivered(delivered)
        return lambda _: EventBatch(saga, None, feed, delivered, old, new)

    def _note_delivered(self, events: Sequence[RecordedEvent]) -> None:
        for event in events:
            if all(each.version < event.version for each in self.delivered if each.stream == event.stream):
                self.delivered.append(event)

    def _record(self, stream_type: str, id_: str) -> RecordedEvent:
        version = 1 + sum(event.stream == f"{stream_type}.{id_}" for event in self.events)
        amount = BROKEN if self.chance.random() < 0.1 else 5
        if stream_type.endswith("account"):
            event = paid(id_, version, amount)
        else:
            account = BROKEN_KEY if self.chance.random() < 0.05 else self.chance.choice(ACCOUNTS)
            event = written(id_, amount, version, account=account)
        self.events.append(event)
        return event

    def _reply(self) -> Prepare:
        index, reason = self.chance.random(), self.chance.choice(["", "", "CHEQUE_WORTHLESS"])

        def prepare(world: World) -> QueuedInput[Any] | None:
            if not world.steps:
                return None
            step = world.steps[sorted(world.steps)[int(index * len(world.steps))]]
            return Reply(step.saga, step.id, step, StepReply(commands.CashChequeResponse(), reason))

        return prepare

    def _fire(self) -> Prepare:
        index = self.chance.random()

        def prepare(world: World) -> QueuedInput[Any] | None:
            if not world.timers:
                return None
            timer = world.timers[sorted(world.timers)[int(index * len(world.timers))]]
            return TimerFiring(timer.saga, timer.id, timer)

        return prepare

    def _replay(self) -> Prepare:
        index = self.chance.random()

        def prepare(world: World) -> QueuedInput[Any] | None:
            if not world.parked:
                return None
            key = sorted(world.parked)[int(index * len(world.parked))]
            (name, stream), version = key, world.parked[key]
            saga = next(saga for saga in SAGAS if saga.name == name)
            later = [e for e in world.stream_events if e.stream == stream and e.version >= version][:2]
            read = Slice(stream, version, list_successive(version, later), ended=not later)
            return ParkedSlice(saga, None, Feed(name, stream.rpartition(".")[0], 0), read)

        return prepare

    def _choose_instance(self) -> tuple[str, str]:
        saga = self.chance.choice(SAGAS)
        return saga.name, self.chance.choice(CHEQUES if saga is COLLECTION else ACCOUNTS)

    def _retry(self) -> Prepare:
        saga, id_ = self._choose_instance()
        return lambda _: Retry(saga, id_, "ada")

    def _abort(self) -> Prepare:
        saga, id_ = self._choose_instance()
        return lambda _: Cancellation(saga, id_, "enough", "ada")

    def _park(self) -> Prepare:
        saga, id_ = self._choose_instance()
        return lambda _: ParkFailed(saga, id_)

    def _inspect(self) -> Prepare:
        saga, id_ = self._choose_instance()
        return lambda _: RowInspection(saga, id_)


async def play(
    run: SagaRun, rounds: Sequence[Round], divide: Callable[[int], Sequence[int]]
) -> list[dict[str, Any]]:
    """Deliver rounds to empty tables; return the results and all rows after each round.

    Args:
        run: has the store.
        rounds: the inputs.
        divide: returns the bounds of the groups of this number of inputs, from 0 to that number.
    """
    commit = GroupCommit(run.store.groups, lambda: {saga.name: saga for saga in SAGAS}, lambda _: None)
    played = []
    for each in rounds:
        if each.change:
            await run.query(each.change)
        world = await _read_world(run, each.stream_events)
        inputs = [input_ for prepare in each.prepared if (input_ := prepare(world))]
        results: list[Any] = []
        for start, end in pairwise(divide(len(inputs))):
            executions = (commit.execute(input_) for input_ in inputs[start:end])
            results += await asyncio.gather(*executions, return_exceptions=True)
        rows = {table: [tuple(row) for row in await run.query(sql)] for table, sql in ROWS.items()}
        played.append({"results": [_describe(result) for result in results], **rows})
    return played


def find_skipped(each: Round, rows: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Return instance, stream and version of each event that an account has passed over."""
    skipped = []
    for saga, id_, version, other_streams, state, *_ in rows["sagas"]:
        if saga != ACCOUNT_WATCH.name:
            continue
        received = {(stream, number) for stream, number in state["received"]}
        own = f"ledger.account.{id_}"
        positions = {stream: place["version"] for stream, place in json.loads(other_streams).items()}
        expected = [(own, number) for number in range(1, version + 1)] + [
            (event.stream, event.version)
            for event in each.delivered
            if event.version <= positions.get(event.stream, 0) and _belongs_to(id_, event)
        ]
        skipped += [(id_, *key) for key in expected if key not in received]
    return skipped


def _belongs_to(id_: str, event: RecordedEvent) -> bool:
    try:
        return ACCOUNT_WATCH.find_subscription(event.stream).find_instance(event) == id_
    except RuntimeError:  # of the broken key
        return False


def _describe(result: Any) -> Any:
    if isinstance(result, BaseException):
        return type(result).__name__
    return sorted(result) if isinstance(result, set) else None


async def _read_world(run: SagaRun, events: Sequence[RecordedEvent]) -> World:
    steps = await run.query("SELECT saga, id, step, attempt, method, request FROM saga_steps")
    timers = await run.query("SELECT saga, id, name, due_at FROM saga_timers WHERE stopped_at IS NULL")
    parked = await run.query("SELECT saga, stream, version FROM saga_parked_streams")
    return World(
        {tuple(row[:4]): _create_step(*row) for row in steps},
        {tuple(row[:3]): DueTimer(*row) for row in timers},
        {(row.saga, row.stream): row.version for row in parked},
        events,
    )


def _create_step(saga: str, id_: str, step: str, attempt: int, method: str, request: bytes) -> DueStep:
    return DueStep(saga, id_, step, attempt, method, request, 0, False, "", None)
