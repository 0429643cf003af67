"""Pages of the histories of several views, merged into one list, newest first.

How it works. Each history is read backwards in chunks of a page's size, into a queue per view. The page
takes the entry with the latest record time from the heads of the queues until it is full, which is a k-way
merge. The next page continues each history at the head of its queue; the token holds these versions by view
id. Such a version stays valid while new entries arrive, since those get higher versions.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from query_server.view_reader import ViewReader

E = TypeVar("E", bound=Message)


async def read_page(
    views: ViewReader, entry: type[E], versions: Mapping[str, int], size: int, is_included: Any
) -> tuple[list[E], dict[str, int]]:
    """Return the entries of a page, and the versions with which the next page begins.

    Args:
        views: the projection.
        entry: the entries' message type, which has `version` and `record_time`.
        versions: view id to the newest version to include; 0 if the history is exhausted.
        size: the maximum number of entries.
        is_included: whether an entry belongs to the list; other entries are skipped.

    Returns:
        The entries; the versions are empty on the last page.
    """
    unread = dict(versions)
    queues: dict[str, list[E]] = {view_id: [] for view_id in versions}
    page: list[E] = []
    while len(page) < size:
        for view_id, entries in queues.items():
            while not entries and unread[view_id] > 0:
                entries += await _read_chunk(views, entry, view_id, unread[view_id], size)
                unread[view_id] = max(0, unread[view_id] - size)
        heads = [(_get_record_time(entries[0]), view_id) for view_id, entries in queues.items() if entries]
        if not heads:
            return page, {}
        _, newest_id = max(heads)
        if is_included(newest := queues[newest_id].pop(0)):
            page.append(newest)
    next_versions = {
        view_id: _get_version(entries[0]) if entries else unread[view_id]
        for view_id, entries in queues.items()
    }
    return page, {view_id: version for view_id, version in next_versions.items() if version}


async def _read_chunk(views: ViewReader, entry: type[E], view_id: str, newest: int, size: int) -> list[E]:
    versions: Sequence[int] = range(newest, max(0, newest - size), -1)
    return [entry.FromString(data) for data in await views.get_history_entries(view_id, versions)]


def _get_version(entry: Any) -> int:
    return int(entry.version)


def _get_record_time(entry: Any) -> int:
    """Return the record time in nanoseconds since 1970."""
    return int(entry.record_time.ToNanoseconds())
