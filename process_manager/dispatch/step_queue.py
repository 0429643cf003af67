"""The steps that wait in memory for a place of their target, those of older sagas first. Pure.

Older first means that sagas which have begun end before others begin: with steps in order of arrival, many
sagas at once would all take their first step, then all their second, and none would end for a long time.
A step that was tried waits from then on as if its saga had just begun: otherwise requests of old sagas that
are never answered would take the places again and again.
"""

from bisect import insort
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from process_manager.dispatch.targets import target_of
from process_manager.groups.instance import Instance
from process_manager.groups.step import Step
from process_manager.postgres.due_work import DueStep

MAX_STEPS = 1_000
"""Steps of one target; the youngest beyond it are left to a poll."""
LAST = datetime.max.replace(tzinfo=UTC)

MAX_BYTES = 16 * 2**20
"""Of the requests of one target's steps, likewise; a single step may be larger."""

StepKey = tuple[str, str, str, int]
"""Saga, id, step and attempt."""


def key_of(step: DueStep) -> StepKey:
    return step.saga, step.id, step.step, step.attempt


def create_due_step(instance: Instance, step: Step) -> DueStep:
    return DueStep(
        instance.saga.name,
        instance.id,
        step.step,
        step.attempt,
        step.method,
        step.request,
        tries=0,
        denied=False,
        correlation_id=step.cause.correlation_id,
        traceparent=step.cause.traceparent,
        waiting_since=instance.began_at,
        causation_id=step.cause.causation_id,
        began_traceparent=instance.traceparent,
    )


@dataclass
class StepQueue:
    """Steps by target, each once."""

    _by_target: dict[str, list[tuple[datetime, StepKey, DueStep]]] = field(default_factory=dict)
    _bytes: Counter[str] = field(default_factory=Counter)
    """Of the requests, by target."""
    _keys: set[StepKey] = field(default_factory=set)

    def __iter__(self) -> Iterator[StepKey]:
        return iter(self._keys)

    def put(self, step: DueStep) -> bool:
        """Add a step unless it is here; return whether a step, this one or a younger one, found no place."""
        if (key := key_of(step)) in self._keys:
            return False
        steps = self._by_target.setdefault(target := target_of(step.method), [])
        self._keys.add(key)
        self._bytes[target] += len(step.request)
        insort(steps, (step.waiting_since or LAST, key, step), key=lambda entry: entry[:2])
        overflows = False
        while len(steps) > MAX_STEPS or (len(steps) > 1 and self._bytes[target] > MAX_BYTES):
            self._remove(target, len(steps) - 1)
            overflows = True
        return overflows

    def take(self, target: str, *, in_turn: bool = False) -> DueStep | None:
        """Remove and return the step that waits longest; None if no step waits for the target.

        Args:
            target: the target.
            in_turn: whether steps that were tried less often come first.
        """
        steps = self._by_target.get(target)
        if not steps:
            return None
        # Of equal ones `min` returns the first, and so that which waits longest.
        index = min(range(len(steps)), key=lambda number: steps[number][2].tries) if in_turn else 0
        return self._remove(target, index)

    def _remove(self, target: str, index: int) -> DueStep:
        _, key, step = self._by_target[target].pop(index)
        self._keys.remove(key)
        self._bytes[target] -= len(step.request)
        return step
