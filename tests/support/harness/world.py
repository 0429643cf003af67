"""Deciders over many streams, in memory: what is asked, what happens, and what everything has become."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import pytest

from command_server.kernel.decider import Aggregate, Decider, Rejected
from contracts.streams import stream_type
from tests.support.harness.scenario import NOW


class World:
    """The streams of one context, and a time that the test moves."""

    def __init__(self, *deciders: Decider) -> None:
        self._deciders = {command: decider for decider in deciders for command in decider.commands}
        self._aggregates: dict[str, Aggregate] = {
            aggregate.stream_type: aggregate for decider in deciders for aggregate in decider.aggregates
        }
        self.states: dict[str, Any] = {}
        self.history: list[tuple[str, Any]] = []
        """Every event with its stream's name, in the order of their happening."""
        self.now: datetime = NOW

    def do(self, *commands: Any) -> list[Any]:
        """Execute commands; return the events of the last one."""
        events: list[Any] = []
        for command in commands:
            events = self._do(command)
        return events

    def _do(self, command: Any) -> list[Any]:
        decider = self._deciders[type(command)]
        first = {name: self.state(name) for name in decider.streams(command)}
        states = first | {name: self.state(name) for name in decider.related_streams(command, first)}
        decided = decider.decide(command, states, self.now)
        assert decided.keys() <= states.keys()
        happened = [(name, event) for name, events in decided.items() for event in events]
        for name, event in happened:
            aggregate = self._aggregates[stream_type(name)]
            assert type(event) in aggregate.events
            self.states[name] = aggregate.evolve(self.state(name), event)
        self.history += happened
        return [event for _, event in happened]

    def state(self, name: str) -> Any:
        return self.states.get(name, self._aggregates[stream_type(name)].initial)

    def refuses(self, command: Any, reason: str, **details: str) -> None:
        """Assert that a command is refused for this reason, with these among the details."""
        before = dict(self.states)
        with pytest.raises(Rejected) as error:
            self._do(command)
        assert error.value.reason == reason
        assert details.items() <= error.value.details.items()
        assert self.states == before

    def nothing(self, command: Any) -> None:
        """Assert that a command asks for what is so already."""
        assert self._do(command) == []

    def snapshot(self, name: str) -> str:
        return msgspec.json.encode(self.state(name)).decode()

    def reloaded(self) -> None:
        """Assert that every state survives being kept as a snapshot."""
        for name, state in self.states.items():
            again = msgspec.json.decode(msgspec.json.encode(state), type=type(state))
            assert again == state, json.dumps(name)


def kinds(events: Sequence[Any]) -> list[str]:
    """Return what happened, by the events' names."""
    return [type(event).__name__ for event in events]
