"""Snapshots: the state of an aggregate as JSON in its stream's row.

How it works. A snapshot is a cache of the fold of the stream's events, so it may always be discarded. It is
valid only for the code that folded it. Each one is stored with a fingerprint: a hash of the source text of
`evolve`'s module, of the upcasters' modules, and of all modules in the same top-level packages that these
use, directly or indirectly. After a change in any of them the fingerprints differ, and the loader folds the
stream's events again. A new rule therefore never meets a state that an older rule produced. An edited comment
also changes the fingerprint; that costs one fold for each stream and is always safe.
"""

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

import msgspec

from command_server.kernel.decider import Aggregate
from contracts.upcasters import Upcaster


@dataclass(frozen=True, slots=True)
class FoldedState:
    """A stream's state at a version, folded by this process's code."""

    state: Any
    version: int


class SnapshotCodec:
    """Encodes and decodes the states of one aggregate."""

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
        """Sixteen hex digits that identify the code that folds the state."""
        texts = "".join(inspect.getsource(sys.modules[name]) for name in sorted(_find_modules(self._modules)))
        return sha256(texts.encode()).hexdigest()[:16]

    def encode(self, state: Any) -> str:
        """Return the state as JSON."""
        return self._encoder.encode(state).decode()

    def decode(self, state: str) -> Any:
        """Return the state from JSON of the same fingerprint.

        Raises:
            msgspec.MsgspecError: the JSON is not a state of this aggregate.
        """
        return self._decoder.decode(state)


def _find_modules(modules: Sequence[str]) -> set[str]:
    """Return the modules and their direct and indirect imports within the same top-level packages."""
    packages = {name.partition(".")[0] for name in modules}
    visited_names, pending_names = set[str](), list(modules)
    while pending_names:
        if (name := pending_names.pop()) in visited_names:
            continue
        visited_names.add(name)
        values = vars(sys.modules[name]).values()
        imports = {getattr(value, "__module__", None) for value in values}
        imports |= {value.__name__ for value in values if inspect.ismodule(value)}
        pending_names += [module for module in imports if module and module.partition(".")[0] in packages]
    return visited_names
