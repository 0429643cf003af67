"""The persons behind a command, for rules that want a second one behind another command.

A command has them in two fields that the server sets: `caller`, and `persons` (kernel/context.py).
"""

from collections.abc import Iterable


def list_persons(caller: str, persons: frozenset[str], others: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the persons behind a command, and others with them, as events record them."""
    return tuple(sorted({caller, *persons, *others}))


def share_person(caller: str, persons: frozenset[str], others: Iterable[str]) -> bool:
    """Return whether one of these other persons stands behind a command, too."""
    return not (persons | {caller}).isdisjoint(others)
