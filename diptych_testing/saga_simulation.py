"""Sagas on the real rules of contexts, in memory, with every disturbance between them.

How it works:

- The contexts' deciders execute commands, each request id once, as the command server does. Sagas receive the
  resulting events, and their steps are executed as commands, when the test says so: in any order, so that a
  test can delay each event and each reply, lose replies, reject steps, advance the time, retry and abort.
- Events are encoded and decoded as in the feed, and assigned to instances by the sagas' subscriptions.
- It fails on what would fail in the process manager, and on what would fail there only at times: a request
  that is not declared, invalid or without an access rule; a method that no context has; a reaction that is
  not pure; a state that cannot be stored.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from command_server.kernel.context import AggregateType, Context, aggregate_types
from contracts.envelope import RecordedEvent
from contracts.streams import stream_type
from diptych_testing.checked_react import check_saga
from diptych_testing.request_executor import Answers, RequestExecutor
from diptych_testing.world import World
from process_manager.groups.instance import Instance
from process_manager.groups.step import Step
from process_manager.saga import (
    AbortRequested,
    Input,
    RetryRequested,
    Saga,
    StepRejected,
    TimerFired,
)

MAX_INPUTS = 10_000
"""The number of inputs after which sagas that cause each other's steps without end fail the test."""


@dataclass(frozen=True)
class SentStep:
    """A step that an instance has sent."""

    instance: Instance
    step: Step

    @property
    def name(self) -> str:
        return self.step.step

    def is_kind(self, kind: str) -> bool:
        """Return whether this is the name of the step, or its first part, as `reserve` of `reserve-2`."""
        return self.name == kind or self.name.startswith(f"{kind}-")


class SagaSimulation:
    """Sagas and contexts in one memory.

    Args:
        sagas: the sagas to run.
        contexts: the contexts that execute their commands.
        answers: answers the sagas' queries.
        answered_at_once: kinds of steps that are executed and answered when they are sent; they are in
            neither `pending` nor `sent`.

    Raises:
        AssertionError: no service takes a request that a saga declares, or its method has no access rule.
    """

    def __init__(
        self,
        sagas: Iterable[Saga[Any]],
        contexts: Sequence[Context],
        answers: Answers | None = None,
        answered_at_once: Collection[str] = (),
    ) -> None:
        self.sagas = [check_saga(saga) for saga in sagas]
        self.world = World(*(decider for context in contexts for decider in context.deciders))
        self.pending: deque[SentStep] = deque()
        """The steps without an answer, the oldest first."""
        self.sent: list[SentStep] = []
        """All steps in the order in which they were sent."""
        self.timers: dict[tuple[str, str, str], datetime] = {}
        """The timers that are set, by saga, id and name."""
        self.rejections: dict[str, str] = {}
        """Kinds of steps to reject instead of executing them, with the reasons."""
        self._answered_at_once = answered_at_once
        self._instances: dict[tuple[str, str], Instance] = {}
        self._replies: dict[object, Input] = {}
        """The replies by request id."""
        self._delivered: Counter[tuple[str, str]] = Counter()
        """The last delivered version by saga and stream."""
        self._executor = RequestExecutor(self.world, contexts, answers or {})
        self._aggregates = _build_aggregate_types(tuple(contexts))

    def execute(self, *commands: Any) -> None:
        """Execute commands of other callers."""
        self.world.execute(*commands)

    def find_instance(self, saga: str, id_: str) -> Instance:
        """Return an instance, which is new if it has received nothing."""
        if (saga, id_) not in self._instances:
            definition = next(each for each in self.sagas if each.name == saga)
            self._instances[saga, id_] = Instance(definition, id_, definition.initial)
        return self._instances[saga, id_]

    def check_step(self, sent: SentStep) -> None:
        """Called with each step when an instance sends it. Override it to check what must be true then."""

    # What can happen next.

    def deliver_event(self, saga: str = "", stream: str = "") -> bool:
        """Deliver the next event, the oldest of all streams; return False if there is none.

        Args:
            saga: selects one saga; empty for all.
            stream: selects one stream; empty for all.
        """
        for definition in self.sagas:
            if saga in ("", definition.name):
                for event in self._list_undelivered(definition, stream):
                    self._deliver_event(definition, event)
                    return True
        return False

    def answer_step(self, kind: str = "") -> bool:
        """Execute the oldest pending step of a kind, or of all; return False if there is none."""
        for sent in self.pending:
            if not kind or sent.is_kind(kind):
                self.pending.remove(sent)
                self.deliver(sent.instance, self._execute_once(sent))
                return True
        return False

    def lose_reply(self) -> bool:
        """Execute the oldest pending step, but lose its reply: the step stays pending."""
        if not self.pending:
            return False
        self._execute_once(self.pending[0])
        return True

    def advance_time(self, duration: timedelta) -> None:
        """Advance the time, and fire the timers that expire, the earliest first."""
        self.world.now += duration
        for _ in range(MAX_INPUTS):
            due = [(at, key) for key, at in self.timers.items() if at <= self.world.now]
            if not due:
                return
            _, (saga, id_, name) = min(due)
            del self.timers[saga, id_, name]
            self.deliver(self.find_instance(saga, id_), TimerFired(name, self.world.now))
        raise AssertionError(f"timers still expire after {MAX_INPUTS} inputs")

    def settle(self) -> None:
        """Deliver events and answer steps until none are left."""
        for _ in range(MAX_INPUTS):
            if not self.deliver_event() and not self.answer_step():
                return
        raise AssertionError(f"the sagas still send steps after {MAX_INPUTS} inputs")

    def retry(self, saga: str, id_: str) -> None:
        """Request a retry, as an operator does."""
        self.deliver(self.find_instance(saga, id_), RetryRequested(self.world.now))

    def abort(self, saga: str, id_: str, reason: str) -> None:
        """Request an abort, as an operator does."""
        self.deliver(self.find_instance(saga, id_), AbortRequested(reason, self.world.now))

    def deliver(self, instance: Instance, input_: Input) -> None:
        """Deliver an input other than an event."""
        instance.react_to(input_)
        self._collect_reaction(instance)

    def _list_undelivered(self, saga: Saga[Any], stream: str) -> Iterable[RecordedEvent]:
        types = {subscription.stream_type for subscription in saga.subscribes_to}
        versions: Counter[str] = Counter()
        for position, (name, event) in enumerate(self.world.history, 1):
            versions[name] += 1
            if stream_type(name) not in types or stream not in ("", name):
                continue
            if versions[name] > self._delivered[saga.name, name]:
                type_name, data = self._aggregates[stream_type(name)].encode(event)
                yield RecordedEvent(name, versions[name], type_name, data, self.world.now, position, {})

    def _deliver_event(self, saga: Saga[Any], event: RecordedEvent) -> None:
        self._delivered[saga.name, event.stream] = event.version
        if id_ := saga.find_subscription(event.stream).find_instance(event):
            instance = self.find_instance(saga.name, id_)
            assert instance.receive_event(event, self.world.now), f"{saga.name} {id_}: {instance.failure}"
            self._collect_reaction(instance)

    def _collect_reaction(self, instance: Instance) -> None:
        sent = [SentStep(instance, step) for step in instance.steps]
        for each in sent:
            self.check_step(each)
        at_once = [each for each in sent if any(map(each.is_kind, self._answered_at_once))]
        others = [each for each in sent if each not in at_once]
        self.pending += others
        self.sent += others
        for name, at in instance.timers.items():
            key = instance.saga.name, instance.id, name
            if at is None:
                self.timers.pop(key, None)
            else:
                self.timers[key] = at
        instance.steps, instance.timers = [], {}
        for each in at_once:
            self.deliver(instance, self._execute_once(each))

    def _execute_once(self, sent: SentStep) -> Input:
        if sent.step.request_id not in self._replies:
            self._replies[sent.step.request_id] = self._execute(sent)
        return self._replies[sent.step.request_id]

    def _execute(self, sent: SentStep) -> Input:
        for kind, reason in self.rejections.items():
            if sent.is_kind(kind):
                return StepRejected(sent.name, reason, {}, self.world.now)
        return self._executor.execute(sent.step)


@cache  # codecs take a while to build, and many simulations run on the same contexts
def _build_aggregate_types(contexts: Sequence[Context]) -> Mapping[str, AggregateType]:
    return aggregate_types(contexts)
