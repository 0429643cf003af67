"""Snapshots: the state of an aggregate as JSON in its stream's row.

A snapshot is a cache of the fold of the stream's events, so it may always be discarded. It is valid only
for the code that folded it, and stored with that code's fingerprint. Code with another one folds the events
again, so a new rule never meets a state that an older rule produced.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from command_server.kernel.decider import Aggregate
from command_server.kernel.fingerprint import compute_fingerprint, digest
from contracts.upcasters import Upcaster


@dataclass(frozen=True, slots=True)
class FoldedState:
    """A stream's state at a version, folded by this process's code."""

    state: Any
    version: int


class SnapshotCodec:
    """Encodes and decodes the states of one aggregate."""

    def __init__(self, aggregate: Aggregate, upcasters: Sequence[Upcaster] = ()) -> None:
        self.fingerprint = _identify(aggregate, upcasters)
        """Sixteen hex digits that identify the code that folds the state."""
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(type(aggregate.initial))

    def encode(self, state: Any) -> str:
        """Return the state as JSON."""
        return self._encoder.encode(state).decode()

    def decode(self, state: str) -> Any:
        """Return the state from JSON of the same fingerprint.

        Raises:
            msgspec.MsgspecError: the JSON is not a state of this aggregate.
        """
        return self._decoder.decode(state)


def _identify(aggregate: Aggregate, upcasters: Sequence[Upcaster]) -> str:
    if aggregate.snapshot_version is not None:
        return digest("snapshot_version", aggregate.snapshot_version)
    conversions = [upcaster.convert for upcaster in upcasters]
    return compute_fingerprint(aggregate.evolve, aggregate.initial, aggregate.events, conversions)
