"""Who is calling: what authentication made out, for everything that runs within the call."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller: the token's subject, its scopes, and the person that it acts for."""

    subject: str
    scopes: frozenset[str]
    on_behalf_of: str | None = None


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
