"""Finds an order of a saga's recorded inputs in which the installed code does what is on record. Pure.

How it works. The record tells when a reply arrived, when an operator acted, when each step was decided, and
the order of the events of each stream; but not when an event arrived, or a timer fired. So the replay is a
search: it applies one input after another to the installed `react`, and gives an order up as soon as it sends
a step that is not the next one on record, in its name, its bytes or its time. An input that sends steps
arrived at the time at which they were decided. The search succeeds if all inputs are used, all steps were
sent, and state and timers are those of the row. With the code that wrote the record one order does: the real
one.

Inputs are tried in the order of their times, so mostly the first order is right. An event's time is that of
its recording, or that of the next step if no other input can have sent it. States that were reached before,
with the same inputs, are not searched again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, NamedTuple

from operations.rehearse.fields import diff_json, diff_messages
from operations.rehearse.saga_records import RecordedStep
from process_manager.groups.cause import Cause
from process_manager.groups.step import create_step
from process_manager.postgres.stored_values import to_json
from process_manager.saga import AbortRequested, EventReceived, Input, RetryRequested, Saga, Send, TimerFired
from process_manager.saga import Timer as SetTimer

MAX_REACTIONS = 1_000
"""Reactions of one search."""
MAX_FIRED = 100
"""Timers that fire in one order."""
START = datetime.min.replace(tzinfo=UTC)
NO_CAUSE = Cause()


class Mismatch(NamedTuple):
    """What the installed code does otherwise: the part of the record, and what differs in it."""

    kind: str
    """`steps`, `sagas` or `timers`."""
    path: str
    text: str


class Rank(IntEnum):
    """How much a mismatch tells, of several at the same point."""

    OTHER_INPUT = 0
    OTHER_STEP = 1
    CONTENT = 2


class KnownInput(NamedTuple):
    """An input that was received."""

    at: datetime
    """When; of an event when it was recorded, which is earlier."""
    input: Input
    is_exact: bool = True
    """Whether `at` is when it was received."""
    sent_after: int = 0
    """The number of steps that were sent before a reply can arrive."""


class Timer(NamedTuple):
    """A timer that is set."""

    due_at: datetime
    is_exact: bool
    """Whether `due_at` follows from a time that is on record."""


Start = tuple[Any, tuple[int, ...], dict[str, datetime]]
"""How an instance may begin: its state, the inputs that are taken of each queue, and its timers."""


@dataclass(frozen=True)
class History:
    """An instance as it is on record."""

    id: str
    queues: Sequence[Sequence[KnownInput]]
    """Inputs in an order that is known: each stream's events, and the operators' actions. Each reply is a
    queue of its own."""
    steps: Sequence[RecordedStep]
    state: str
    timers: dict[str, datetime]


class _Node(NamedTuple):
    """A point of the search."""

    state: Any
    taken: tuple[int, ...]
    """Of each queue."""
    sent: int = 0
    now: datetime = START
    """When the last input whose time is known was received."""
    timers: tuple[tuple[str, Timer], ...] = ()
    fired: int = 0
    operator_actions: int = 0

    @property
    def depth(self) -> tuple[int, int]:
        return self.sent, sum(self.taken)

    @property
    def key(self) -> tuple[object, ...]:
        try:
            state = hash(self.state)
        except TypeError:  # its class is not frozen, or has a list
            state = hash(repr(self.state))
        return state, self.taken, self.sent, tuple(name for name, _ in self.timers)


class Replay:
    """One search.

    Args:
        saga: the installed saga.
        history: the instance.
    """

    def __init__(self, saga: Saga[Any], history: History) -> None:
        self._saga, self._history = saga, history
        self._end = tuple(len(queue) for queue in history.queues)
        self._exact_times = {known.at for queue in history.queues for known in queue if known.is_exact}
        self._reactions = 0
        self._seen: set[tuple[object, ...]] = set()
        """The points at which several inputs may be next."""
        self._best: tuple[tuple[int, ...], list[Mismatch]] = (-1,), []
        self._estimates: set[datetime] = set()
        """The times that were assumed for inputs."""

    def run(self, starts: Sequence[Start]) -> list[Mismatch] | None:
        """Return what differs in the order that comes furthest; None if the search was given up.

        Args:
            starts: the ways in which the instance may begin.
        """
        stack = [
            iter(
                [
                    _Node(state, taken, timers=tuple((name, Timer(at, True)) for name, at in timers.items()))
                    for state, taken, timers in starts
                ]
            )
        ]
        while stack:
            node = next(stack[-1], None)
            if node is None:
                stack.pop()
                continue
            if node.taken == self._end:
                if not (mismatches := self._compare_end(node)):
                    return []
                self._note(node, Rank.CONTENT, mismatches)
            if self._reactions > MAX_REACTIONS:
                return None
            stack.append(self._continue(node))
        return self._best[1]

    def _continue(self, node: _Node) -> Iterator[_Node]:
        """Yield the points after the inputs that may be next, the earliest first."""
        candidates: list[tuple[datetime, int, KnownInput]] = []
        due = self._find_time_of_unknown(node)
        for index, (taken, queue) in enumerate(zip(node.taken, self._history.queues, strict=True)):
            if taken < len(queue) and queue[taken].sent_after <= node.sent:
                known = queue[taken]
                if known.is_exact and known.at < node.now:
                    return  # too late for it
                candidates.append((known.at if known.is_exact else max(known.at, due), index, known))
        for name, timer in node.timers:
            if self._history.timers.get(name) != timer.due_at and node.fired < MAX_FIRED:
                earliest = timer.due_at if timer.is_exact else node.now
                known = KnownInput(earliest, TimerFired(name, earliest), is_exact=False)
                candidates.append((max(timer.due_at, due), -1, known))
        if len(candidates) > 1:
            if (key := node.key) in self._seen:
                return
            self._seen.add(key)
            candidates.sort(key=lambda each: each[:2])
        for _, index, known in candidates:
            point = _take(node, index, known.input)
            after = self._react(point, known)
            if after is not None:
                yield after
            if isinstance(known.input, RetryRequested):  # recorded alone if the instance failed on an event
                yield point._replace(now=known.at)

    def _find_time_of_unknown(self, node: _Node) -> datetime:
        """Return when an input is expected whose time is not on record.

        If no other input arrived when the next step was decided, it is the one that sends the step.
        """
        if node.sent == len(self._history.steps):
            return START
        decided_at = self._history.steps[node.sent].decided_at
        return START if decided_at in self._exact_times else decided_at

    def _react(self, node: _Node, known: KnownInput) -> _Node | None:
        """Return the point after an input; None if it does something else than what is on record."""
        input_, at, is_exact = known.input, known.at, known.is_exact
        if not is_exact:
            at = max(at if isinstance(input_, TimerFired) else node.now, node.now)
            if node.sent < len(self._history.steps):  # it is received by then, perhaps just then
                at = max(at, self._history.steps[node.sent].decided_at)
            elif isinstance(input_, EventReceived):
                at = max(at, known.at)
            input_ = replace(input_, at=at)
        try:
            self._reactions += 1
            reaction = self._saga.react(node.state, input_)
            self._saga.describe_status(reaction.state)
        except Exception as error:  # the installed code may fail on any input
            name = type(input_).__name__
            text = f"{name} fails: {error!r}"
            self._note(node, Rank.OTHER_STEP, [Mismatch("sagas", type(error).__name__, text)])
            return None
        for number, send in enumerate(reaction.send, node.sent):
            rank, mismatches = self._compare_step(send, number, node.operator_actions, at)
            if mismatches:
                self._note(node, rank, mismatches)
                return None
        is_exact = is_exact or bool(reaction.send)
        if not is_exact:
            self._estimates.add(at)
        return _Node(
            reaction.state,
            node.taken,
            node.sent + len(reaction.send),
            at if is_exact else node.now,
            _set_timers(node.timers, reaction.timers, is_exact) if reaction.timers else node.timers,
            node.fired,
            node.operator_actions,
        )

    def _compare_step(
        self, send: Send, number: int, operator_actions: int, at: datetime
    ) -> tuple[Rank, Sequence[Mismatch]]:
        """Return what differs between a step that is sent and the next one on record."""
        if number >= len(self._history.steps):
            text = f"{send.step} is sent, and was not"
            return Rank.OTHER_STEP, [Mismatch("steps", get_kind(send.step), text)]
        stored = self._history.steps[number]
        kind = get_kind(stored.step)
        if stored.step != send.step:
            return Rank.OTHER_STEP, [Mismatch("steps", kind, f"{stored.step} -> {send.step}")]
        if stored.decided_at != at or stored.attempt > 1 + operator_actions:
            return Rank.OTHER_INPUT, [Mismatch("steps", kind, f"{stored.step} is sent by another input")]
        try:
            step = create_step(self._saga, self._history.id, send, stored.attempt, stored.number, NO_CAUSE)
        except Exception as error:  # a request of another type, or one that cannot be serialised
            return Rank.CONTENT, [Mismatch("steps", kind, f"{stored.step} cannot be sent: {error!r}")]
        if step.method != stored.method:
            return Rank.CONTENT, [Mismatch("steps", kind, f"{stored.step}: {stored.method} -> {step.method}")]
        if step.request == stored.request:
            return Rank.CONTENT, ()
        found = diff_messages(type(send.request), stored.request, step.request)
        return Rank.CONTENT, [
            Mismatch("steps", f"{kind}.{path}", f"{stored.step}: {path} {text}") for path, text in found
        ]

    def _compare_end(self, node: _Node) -> list[Mismatch]:
        """Return what differs after all inputs."""
        missing = self._history.steps[node.sent :]
        if missing:
            return [Mismatch("steps", get_kind(missing[0].step), f"{missing[0].step} is not sent")]
        found = diff_json(self._history.state, to_json(node.state))
        estimates = [to_json(at).strip('"') for at in self._estimates] if found else ()
        differences = [
            Mismatch("sagas", path, f"{path} {text}")
            for path, text in found
            if not any(estimate in text for estimate in estimates)
        ]
        return differences + list(self._compare_timers(dict(node.timers)))

    def _compare_timers(self, timers: dict[str, Timer]) -> Iterator[Mismatch]:
        for name in sorted(timers.keys() | self._history.timers.keys()):
            stored, timer = self._history.timers.get(name), timers.get(name)
            if stored is None or timer is None:
                yield Mismatch("timers", name, f"{name} is set" if timer else f"{name} is not set")
            elif timer.is_exact and timer.due_at != stored:
                yield Mismatch("timers", name, f"{name} {stored.isoformat()} -> {timer.due_at.isoformat()}")

    def _note(self, node: _Node, rank: Rank, mismatches: Sequence[Mismatch]) -> None:
        """Keep the mismatches of the order that has come furthest."""
        place = (*node.depth, rank, -len(mismatches))
        if place > self._best[0]:
            self._best = place, list(mismatches)


def _take(node: _Node, index: int, input_: Input) -> _Node:
    """Return a point at which an input is taken: the next one of a queue, or a timer."""
    if isinstance(input_, TimerFired):
        timers = tuple(each for each in node.timers if each[0] != input_.timer)
        return node._replace(timers=timers, fired=node.fired + 1)
    actions = node.operator_actions + isinstance(input_, RetryRequested | AbortRequested)
    taken = (*node.taken[:index], node.taken[index] + 1, *node.taken[index + 1 :])
    return node._replace(taken=taken, operator_actions=actions)


def _set_timers(
    before: Sequence[tuple[str, Timer]], changes: Sequence[SetTimer], is_exact: bool
) -> tuple[tuple[str, Timer], ...]:
    timers = dict(before)
    for change in changes:
        timers.pop(change.name, None)
        if change.at is not None:
            timers[change.name] = Timer(change.at, is_exact)
    return tuple(timers.items())


def get_kind(step: str) -> str:
    """Return the name of a step without a number at its end: that of `confirm-2` is `confirm`."""
    name, _, number = step.rpartition("-")
    return name if name and number.lstrip("v").isdecimal() else step
