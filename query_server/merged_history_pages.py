"""Pages of the histories of several views, merged into one list, newest first.

How it works. Each history is read backwards in chunks, into a queue per view. The page takes the entry with
the latest record time from the heads of the queues until it has enough entries or bytes, which is a k-way
merge. The next page continues each history at the head of its queue; the token holds these versions by view
id, as JSON. Such a version stays valid while new entries arrive, since those get higher versions.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec
from google.protobuf.message import Message

from query_server.fresh_reader import FreshReader
from query_server.history_entries import HistoryEntries
from query_server.history_pages import NO_BOUND
from query_server.pages import Page, PagedList, PageRequest, get_size
from query_server.view_reader import ViewReader
from runtime.grpc.request_tokens import invalid_page_token

E = TypeVar("E", bound=Message)

MIN_CHUNK_SIZE = 10
"""Entries of one history per read. Histories share a page, so most of a page's size would be read in vain."""


@dataclass(frozen=True, slots=True)
class MergedPage:
    """The place of a page in its list, as a request names it."""

    paged_list: PagedList
    size: int
    """The maximum number of entries."""
    first_versions: Mapping[str, int] | None
    """View id to the version with which the page begins; None for the first page."""

    @classmethod
    def of(cls, reader: FreshReader, list_id: str, request: PageRequest) -> "MergedPage":
        """Return the requested page.

        Args:
            reader: of the call.
            list_id: identifies the list, including every filter of the request.
            request: the request.

        Raises:
            RpcError: `PAGE_TOKEN_INVALID`.
        """
        paged_list = PagedList.of(reader, request, list_id)
        token = paged_list.read_token()
        try:
            versions = msgspec.json.decode(token, type=dict[str, int]) if token else None
        except msgspec.MsgspecError:
            raise invalid_page_token() from None
        return cls(paged_list, get_size(request), versions)

    async def read(
        self,
        views: ViewReader,
        entry: type[E],
        versions: Mapping[str, range],
        is_included: Callable[[E], bool],
    ) -> Page:
        """Return the page.

        Args:
            views: the projection.
            entry: the entries' message type, which has `version` and `record_time`.
            versions: view id to the versions that have an entry.
            is_included: whether an entry belongs to the list; other entries are skipped.
        """
        histories = [
            _History(
                views, entry, view_id, range_.start, min(range_.stop - 1, self._get_first_version(view_id))
            )
            for view_id, range_ in versions.items()
        ]
        archived = any(range_.start > 1 for range_ in versions.values())
        items: list[bytes] = []
        budget = views.create_budget()
        chunk_size = max(MIN_CHUNK_SIZE, self.size // max(1, len(histories)))
        while len(items) < self.size:
            for history in histories:
                await history.fill_queue(chunk_size)
            queued = [history for history in histories if history.queue]
            if not queued:
                return Page(items, "", archived)
            queue = max(queued, key=_History.get_head_time).queue
            data, newest, _ = queue[0]
            is_unreadable = not newest.HasField("record_time")
            if is_unreadable or is_included(newest):
                if not budget.take(len(data)):
                    break
                items.append(data)
            queue.popleft()
        next_versions = {history.view_id: history.get_next_version() for history in histories}
        unread = {view_id: version for view_id, version in next_versions.items() if version}
        return self.paged_list.build_page(
            items, msgspec.json.encode(unread).decode() if unread else "", archived
        )

    def _get_first_version(self, view_id: str) -> int:
        return NO_BOUND if self.first_versions is None else self.first_versions.get(view_id, 0)


@dataclass(slots=True)
class _History(Generic[E]):
    """One of the histories, read backwards."""

    views: ViewReader
    entry: type[E]
    view_id: str
    first: int
    """The first version that is not archived."""
    unread: int
    """The newest version that was not read yet; 0 if the history is exhausted."""
    queue: deque[tuple[bytes, E, int]] = field(default_factory=deque)
    """The entries that were read and are not in the page, serialised and parsed, with their times."""
    last_time: int = 2**63
    """The time of the oldest entry that was read, in nanoseconds since 1970."""

    async def fill_queue(self, size: int) -> None:
        """Read the next chunk of entries if the queue is empty."""
        if self.queue or self.unread < self.first:
            return
        versions = range(self.unread, max(self.first - 1, self.unread - size), -1)
        for data in await HistoryEntries(self.views, self.view_id, self.entry).read(versions):
            entry: Any = self.entry.FromString(data)
            # An entry that cannot be read has no time, and stays between its neighbours.
            if entry.HasField("record_time"):
                self.last_time = entry.record_time.ToNanoseconds()
            self.queue.append((data, entry, self.last_time))
        self.unread = versions[-1] - 1 if versions[-1] > self.first else 0

    def get_head_time(self) -> tuple[int, str]:
        """Return the record time of the queue's head in nanoseconds since 1970, and the view's id."""
        return self.queue[0][2], self.view_id

    def get_next_version(self) -> int:
        """Return the version with which the next page continues; 0 if the history is exhausted."""
        head: Any = self.queue[0][1] if self.queue else None
        return int(head.version) if head else self.unread if self.unread >= self.first else 0
