"""An aggregate's state as JSON in its stream's row: a cache of the fold that can always be made again."""

import inspect
import sys
from functools import cached_property
from hashlib import sha256
from typing import Any

import msgspec

from command_server.kernel.decider import Aggregate


class Snapshots:
    """Writes and reads one aggregate's states.

    A state carries the fingerprint of the code that folded it, the text of the module of `evolve`. Code with
    another fingerprint folds the events again, so a changed rule never meets a state that it did not make.
    """

    def __init__(self, aggregate: Aggregate) -> None:
        self._state = type(aggregate.initial)
        self._module = sys.modules[aggregate.evolve.__module__]
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(self._state)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change with the code that folds the state."""
        return sha256(inspect.getsource(self._module).encode()).hexdigest()[:16]

    def encode(self, state: Any) -> str:
        """Return a state as JSON."""
        return self._encoder.encode(state).decode()

    def decode(self, state: str) -> Any:
        """Return the state that JSON of the same fingerprint holds."""
        return self._decoder.decode(state)
