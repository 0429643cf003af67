"""The authenticated caller of the current call."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from math import inf
from time import time


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller."""

    subject: str
    scopes: frozenset[str]
    on_behalf_of: str | None = None
    """The subject of the person for whom the caller acts, or None."""
    expires_at: float = inf
    """The time when the token expires, in seconds since 1970."""
    persons: frozenset[str] = field(init=False, compare=False, repr=False)
    """The caller's subject, and the person for whom it acts."""

    def __post_init__(self) -> None:
        others = () if self.on_behalf_of is None else (self.on_behalf_of,)
        object.__setattr__(self, "persons", frozenset((self.subject, *others)))

    def expires_in(self) -> float | None:
        """Return the seconds until the token expires, 0 if it has expired, None if it never expires."""
        return None if self.expires_at == inf else max(0.0, self.expires_at - time())


_CALLER: ContextVar[Caller] = ContextVar("caller")


def current() -> Caller:
    """Return the caller of the current call.

    Raises:
        LookupError: there is no authenticated caller.
    """
    return _CALLER.get()


def current_or_none() -> Caller | None:
    return _CALLER.get(None)


def set_current(caller: Caller) -> None:
    """Set the caller for the rest of the running task; gRPC runs every call in a task of its own."""
    _CALLER.set(caller)
