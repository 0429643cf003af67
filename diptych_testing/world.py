"""Deciders over many streams in memory, for tests of commands that change several aggregates."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from command_server.kernel.decider import Aggregate, Decider, Rejected
from contracts.streams import stream_type
from diptych_testing.scenario import NOW


class World:
    """All streams of the deciders' contexts, with their states and a clock that the test sets."""

    def __init__(self, *deciders: Decider) -> None:
        self._deciders = {command: decider for decider in deciders for command in decider.commands}
        self._aggregates: dict[str, Aggregate] = {
            aggregate.stream_type: aggregate for decider in deciders for aggregate in decider.aggregates
        }
        self.states: dict[str, Any] = {}
        self.history: list[tuple[str, Any]] = []
        """Every event with the name of its stream, in the order of recording."""
        self.now: datetime = NOW

    def execute(self, *commands: Any) -> list[Any]:
        """Execute the commands and return the events of the last one."""
        events: list[Any] = []
        for command in commands:
            events = self._execute(command)
        return events

    def _execute(self, command: Any) -> list[Any]:
        assert type(command) in self._deciders, f"no decider here has the command {type(command).__name__}"
        decider = self._deciders[type(command)]
        states = {name: self.state(name) for name in decider.streams(command)}
        states |= {name: self.state(name) for name in decider.related_streams(command, states)}
        decision = decider.decide(command, states, self.now)
        assert decision.keys() <= states.keys()
        new_events = [(name, event) for name, events in decision.items() for event in events]
        for name, event in new_events:
            aggregate = self._aggregates[stream_type(name)]
            assert type(event) in aggregate.events
            self.states[name] = aggregate.evolve(self.state(name), event)
        self.history += new_events
        return [event for _, event in new_events]

    def state(self, name: str) -> Any:
        return self.states.get(name, self._aggregates[stream_type(name)].initial)

    def version(self, name: str) -> int:
        """Return the number of a stream's events."""
        return sum(stream == name for stream, _ in self.history)

    def assert_rejected(self, command: Any, reason: str, **details: str) -> None:
        """Assert that a command is rejected for this reason, with at least these details."""
        before = dict(self.states)
        try:
            events = self._execute(command)
        except Rejected as rejected:
            assert rejected.reason == reason
            assert details.items() <= rejected.details.items()
        else:
            raise AssertionError(f"expected {reason}, but the command was accepted: {events}")
        assert self.states == before

    def assert_unchanged(self, command: Any) -> None:
        """Assert that a command is accepted and has no events."""
        assert self._execute(command) == []

    def snapshot(self, name: str) -> str:
        return msgspec.json.encode(self.state(name)).decode()

    def assert_snapshots_decode(self) -> None:
        """Assert that the snapshot of every state decodes to an equal state."""
        for name, state in self.states.items():
            decoded = msgspec.json.decode(msgspec.json.encode(state), type=type(state))
            assert decoded == state, json.dumps(name)


def names_of(events: Sequence[Any]) -> list[str]:
    """Return the class names of events."""
    return [type(event).__name__ for event in events]
