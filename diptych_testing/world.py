"""Deciders over many streams in memory, for tests of commands that change several aggregates."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import reduce
from typing import Any

import msgspec

from command_server.kernel.decider import Aggregate, Decider, Rejected
from command_server.kernel.event_index import EarlierEvents, IndexEntry, Lookup
from contracts.streams import aggregate_id, stream_type
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
        self.times: list[datetime] = []
        """The times of the events in `history`."""
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
        if decider.lookup is not None:
            command = replace(command, earlier_events=self.find_earlier_events(decider.lookup, command))
        states = {name: self.state(name) for name in decider.streams(command)}
        states |= {name: self.state(name) for name in decider.related_streams(command, states)}
        try:
            decision = decider.decide(command, states, self.now)
        except Rejected as rejected:
            self._record(states, rejected.events)
            raise
        return self._record(states, decision)

    def _record(self, states: Mapping[str, Any], decision: Mapping[str, Sequence[Any]]) -> list[Any]:
        """Record the events of a decision about these streams, and return them."""
        assert decision.keys() <= states.keys()
        new_events = [(name, event) for name, events in decision.items() for event in events]
        for name, event in new_events:
            aggregate = self._aggregates[stream_type(name)]
            assert type(event) in aggregate.events
            self.states[name] = aggregate.evolve(self.state(name), event)
        self.history += new_events
        self.times += [self.now] * len(new_events)
        return [event for _, event in new_events]

    def state(self, name: str) -> Any:
        return self.states.get(name, self._aggregates[stream_type(name)].initial)

    def version(self, name: str) -> int:
        """Return the number of a stream's events."""
        return sum(stream == name for stream, _ in self.history)

    def find_earlier_events(self, lookup: Lookup, command: Any) -> EarlierEvents | None:
        """Return what a command may know of the events before the stream that it is about."""
        stream, version = lookup.stream(command)
        own = [number for number, (name, _) in enumerate(self.history) if name == stream][:version]
        if len(own) < version:
            return None
        state = self._fold(stream, version)
        earlier = [(self._find_index_keys(lookup, number), number) for number in range(own[0])]
        entries = {
            key: [self._build_entry(number) for keys, number in reversed(earlier) if key in keys][:limit]
            for key, limit in lookup.keys(state).items()
        }
        return EarlierEvents(state, self.times[own[0]], entries)

    def _find_index_keys(self, lookup: Lookup, number: int) -> Sequence[str]:
        stream, event = self.history[number]
        if stream_type(stream) != lookup.index.stream_type or type(event) not in lookup.index.events:
            return ()
        version = sum(name == stream for name, _ in self.history[: number + 1])
        return lookup.index.keys(event, self._fold(stream, version))

    def _build_entry(self, number: int) -> IndexEntry:
        return IndexEntry(aggregate_id(self.history[number][0]), self.times[number])

    def _fold(self, stream: str, version: int) -> Any:
        aggregate = self._aggregates[stream_type(stream)]
        events = [event for name, event in self.history if name == stream][:version]
        return reduce(aggregate.evolve, events, aggregate.initial)

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
