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

    A state carries the fingerprint of the code that folded it: the text of the module of `evolve` and of all
    modules of ours that it uses. Code with another fingerprint folds the events again, so a changed rule
    never meets a state that it did not make.
    """

    def __init__(self, aggregate: Aggregate) -> None:
        self._state = type(aggregate.initial)
        self._module = aggregate.evolve.__module__
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(self._state)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change with the code that folds the state."""
        texts = "".join(inspect.getsource(sys.modules[name]) for name in sorted(_used_by(self._module)))
        return sha256(texts.encode()).hexdigest()[:16]

    def encode(self, state: Any) -> str:
        """Return a state as JSON."""
        return self._encoder.encode(state).decode()

    def decode(self, state: str) -> Any:
        """Return the state that JSON of the same fingerprint holds."""
        return self._decoder.decode(state)


def _used_by(module: str) -> set[str]:
    """Return the names of a module and of those of its top-level package that it uses, directly or not."""
    root, found, rest = module.partition(".")[0], set[str](), [module]
    while rest:
        if (name := rest.pop()) in found:
            continue
        found.add(name)
        used = {getattr(value, "__module__", None) for value in vars(sys.modules[name]).values()}
        used |= {value.__name__ for value in vars(sys.modules[name]).values() if inspect.ismodule(value)}
        rest += [other for other in used if other and other.partition(".")[0] == root]
    return found
