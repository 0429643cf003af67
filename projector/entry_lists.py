"""Index entries to write, by index: one command for each instead of one for each view."""

from collections.abc import Collection

from projector.projection import Entry

MAX_SIZE = 1_000
"""Entries of one command; Lua passes 8,000 arguments at most."""

EntryList = tuple[str, list[int], list[str]]
"""The key of an index, the positions of the views in the call, and the arguments of the command."""


class EntryLists:
    """Index entries by key.

    Args:
        before_member: arguments that precede each member.
    """

    def __init__(self, *before_member: str) -> None:
        self._before_member = before_member
        self._lists: dict[str, EntryList] = {}
        self._full: list[EntryList] = []

    def add(self, position: int, entries: Collection[Entry], except_those: Collection[Entry]) -> None:
        """Add entries of the view at this position in the call."""
        for entry in entries:
            if entry in except_those:
                continue
            key, member = entry
            if (listed := self._lists.get(key)) is None:
                listed = self._lists[key] = (key, [], [])
            _, positions, arguments = listed
            positions.append(position)
            arguments += (*self._before_member, member)
            if len(positions) == MAX_SIZE:
                self._full.append(self._lists.pop(key))

    def list_all(self) -> list[EntryList]:
        return [*self._full, *self._lists.values()]
