"""Given-when-then tests of a decider: past events, a command, and the expected events or rejection."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from command_server.kernel.decider import Aggregate, Decider, Rejected

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Scenario:
    """A test of one aggregate: `given` past events, `when` a command, `then` events or `then_rejected`."""

    aggregate: Aggregate
    decider: Decider
    history: tuple[Any, ...] = ()
    command: Any = None

    def given(self, *events: Any) -> "Scenario":
        return replace(self, history=events)

    def when(self, command: Any) -> "Scenario":
        return replace(self, command=command)

    def then(self, *expected: Any) -> None:
        assert tuple(self._decide()) == expected

    def then_rejected(self, reason: str, **details: str) -> None:
        try:
            events = self._decide()
        except Rejected as rejected:
            assert (rejected.reason, rejected.details) == (reason, details)
        else:
            raise AssertionError(f"expected {reason}, but the command was accepted: {events}")

    def _decide(self) -> Sequence[Any]:
        state = self.aggregate.initial
        for event in self.history:
            state = self.aggregate.evolve(state, event)
        (stream,) = self.decider.streams(self.command)
        return self.decider.decide(self.command, {stream: state}, NOW)[stream]
