"""An aggregate's state as JSON in its stream's row: a cache of the fold that can always be made again."""

import inspect
import sys
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any

import msgspec

from command_server.kernel.decider import Aggregate
from contracts.upcasters import Upcaster


class Snapshots:
    """Writes and reads one aggregate's states.

    A state carries the fingerprint of the code that folded it: the text of the modules of `evolve` and of
    what brings older events to it, and of all modules of ours that they use. Code with another fingerprint
    folds the events again, so a changed rule never meets a state that it did not make.
    """

    def __init__(self, aggregate: Aggregate, upcasters: Sequence[Upcaster] = ()) -> None:
        self._state = type(aggregate.initial)
        self._modules = [
            aggregate.evolve.__module__,
            *(upcaster.convert.__module__ for upcaster in upcasters),
        ]
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(self._state)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change with the code that folds the state."""
        texts = "".join(inspect.getsource(sys.modules[name]) for name in sorted(_used_by(self._modules)))
        return sha256(texts.encode()).hexdigest()[:16]

    def encode(self, state: Any) -> str:
        """Return a state as JSON."""
        return self._encoder.encode(state).decode()

    def decode(self, state: str) -> Any:
        """Return the state that JSON of the same fingerprint holds."""
        return self._decoder.decode(state)


def _used_by(modules: Sequence[str]) -> set[str]:
    """Return the names of modules and of those of their top-level packages that they use, directly or not."""
    roots, found, rest = {name.partition(".")[0] for name in modules}, set[str](), list(modules)
    while rest:
        if (name := rest.pop()) in found:
            continue
        found.add(name)
        used = {getattr(value, "__module__", None) for value in vars(sys.modules[name]).values()}
        used |= {value.__name__ for value in vars(sys.modules[name]).values() if inspect.ismodule(value)}
        rest += [other for other in used if other and other.partition(".")[0] in roots]
    return found
