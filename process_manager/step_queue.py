"""The steps that wait in memory for a place of their target, those of older sagas first. Pure.

Older first means that sagas which have begun end before others begin: with steps in order of arrival, many
sagas at once would all take their first step, then all their second, and none would end for a long time.
"""

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from process_manager.due_work import DueStep
from process_manager.instance import Instance, Step
from process_manager.targets import target_of

MAX_STEPS = 1_000
"""Steps of one target; the youngest beyond it are left to a poll."""
LAST = datetime.max.replace(tzinfo=UTC)

StepKey = tuple[str, str, str]
"""Saga, id and step."""


def key_of(step: DueStep) -> StepKey:
    return step.saga, step.id, step.step


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
        correlation_id=instance.correlation_id,
        traceparent=instance.traceparent,
        began_at=instance.began_at,
    )


@dataclass
class StepQueue:
    """Steps by target, each once."""

    _by_target: dict[str, list[tuple[datetime, StepKey, int, DueStep]]] = field(default_factory=dict)
    _keys: set[StepKey] = field(default_factory=set)

    def __iter__(self) -> Iterator[StepKey]:
        return iter(self._keys)

    def put(self, step: DueStep) -> bool:
        """Add a step unless it is here; return whether a step, this one or a younger one, found no place."""
        if (key := key_of(step)) in self._keys:
            return False
        steps = self._by_target.setdefault(target_of(step.method), [])
        self._keys.add(key)
        insort(steps, (step.began_at or LAST, key, step.attempt, step), key=lambda entry: entry[:3])
        if len(steps) <= MAX_STEPS:
            return False
        self._keys.remove(steps.pop()[1])
        return True

    def take(self, target: str, *, in_turn: bool = False) -> DueStep | None:
        """Remove and return the step of the oldest saga; None if no step waits for the target.

        Args:
            target: the target.
            in_turn: whether steps that were tried less often come first.
        """
        steps = self._by_target.get(target)
        if not steps:
            return None
        # Of equal ones `min` returns the first, and so that of the oldest saga.
        index = min(range(len(steps)), key=lambda number: steps[number][3].tries) if in_turn else 0
        _, key, _, step = steps.pop(index)
        self._keys.remove(key)
        return step
