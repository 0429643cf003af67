"""The logs of several views as one: newest first, each from where the page before has left it."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from query_server.view_reader import ViewReader

E = TypeVar("E", bound=Message)


async def page(
    views: ViewReader, entry: type[E], places: Mapping[str, int], size: int, counts: Any
) -> tuple[list[E], dict[str, int]]:
    """Return the entries of a page, and where the next one begins.

    Args:
        views: where the logs are.
        entry: what they hold; a message with `version` and `record_time`.
        places: view id to the version that the page begins with in its log; 0 where nothing is left.
        size: how many entries at the most.
        counts: whether an entry is one for the page; others are passed over.
    """
    left = dict(places)
    waiting: dict[str, list[E]] = {view_id: [] for view_id in places}
    found: list[E] = []
    while len(found) < size:
        for view_id, entries in waiting.items():
            while not entries and left[view_id] > 0:
                entries += await _chunk(views, entry, view_id, left[view_id], size)
                left[view_id] = max(0, left[view_id] - size)
        heads = [(_time(entries[0]), view_id) for view_id, entries in waiting.items() if entries]
        if not heads:
            return found, {}
        _, newest = max(heads)
        if counts(taken := waiting[newest].pop(0)):
            found.append(taken)
    next_versions = {id_: _version(entries[0]) if entries else left[id_] for id_, entries in waiting.items()}
    return found, {view_id: version for view_id, version in next_versions.items() if version}


async def _chunk(views: ViewReader, entry: type[E], view_id: str, newest: int, size: int) -> list[E]:
    versions: Sequence[int] = range(newest, max(0, newest - size), -1)
    return [entry.FromString(data) for data in await views.history_entries(view_id, versions)]


def _version(entry: Any) -> int:
    return int(entry.version)


def _time(entry: Any) -> int:
    return int(entry.record_time.ToNanoseconds())
