"""Who is calling: what authentication made out, for everything that runs within the call."""

from contextvars import ContextVar
from dataclasses import dataclass
from math import inf
from time import time


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller: the token's subject, scopes and end, and the person that it acts for."""

    subject: str
    scopes: frozenset[str]
    on_behalf_of: str | None = None
    expires_at: float = inf
    """When the token expires, in seconds since 1970."""

    def expires_in(self) -> float | None:
        """Return the seconds until the token expires; None where it never does."""
        return None if self.expires_at == inf else max(0.0, self.expires_at - time())


_CALLER: ContextVar[Caller] = ContextVar("caller")


def current() -> Caller:
    """Return the caller of the call under way.

    Raises:
        LookupError: nobody was authenticated here.
    """
    return _CALLER.get()


def known() -> Caller | None:
    """Return the caller of the call under way, or None where nobody was authenticated."""
    return _CALLER.get(None)


def enter(caller: Caller) -> None:
    """Make this the caller for the rest of the running task, which gRPC starts anew for every call."""
    _CALLER.set(caller)
