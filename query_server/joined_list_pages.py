"""Pages of views with what they refer to, filtered and sorted by more than one index knows.

How it works. A list reads the members of one index and checks their views, as `list_pages.read_page` does. It
leaves out what the index does not, so pages may be short: after MAX_CHECKED views a page ends. A list that is
sorted by something else than its index is read whole and sorted if it is short; a long one is filtered from
an index of all views that is sorted in that way. The page token is the last member of the page in that order.

The views of a page are then joined: the views that they refer to are read together.
"""

from collections.abc import Awaitable, Callable, Sequence
from itertools import takewhile
from typing import Protocol

import msgspec

from query_server.fresh_reader import FreshReader
from query_server.list_pages import read_current_views
from query_server.pages import Page, PagedList, PageRequest, get_size
from query_server.view_reader import ViewReader, Window

MAX_CHECKED = 1_000
"""Views that are read for one page."""
CHUNK_SIZE = 200
"""Views that are read at a time."""
MEMBERS_SIZE = 2_000
"""Members of an index that are read at a time, and MAX_MEMBER_READS times for one page."""
MAX_MEMBER_READS = 5

Listed = tuple[str, bytes]
"""A member of a list, and its serialised view."""
Join = Callable[[Sequence[bytes]], Awaitable[Sequence[bytes]]]
"""Takes serialised views; returns the serialised item of each."""


class ViewList(Protocol):
    """A list of views, the highest member first."""

    async def read(self, views: ViewReader, after: str, size: int) -> tuple[Sequence[Listed], str]:
        """Return the next views.

        Args:
            views: the projection.
            after: the member before the first one; empty to begin with the highest.
            size: the maximum number of views.

        Returns:
            The views, and the last member that was read for them, empty at the end of the list.
        """
        ...


async def read_page(
    reader: FreshReader, view_list: ViewList, list_id: str, request: PageRequest, join: Join
) -> Page:
    """Return the requested page of a list.

    Args:
        reader: the projection.
        view_list: the list.
        list_id: identifies the list, including every filter of the request.
        request: the request.
        join: makes the items of the page from its views.

    Raises:
        RpcError: `PAGE_TOKEN_INVALID`; an error of `join` or of the reader.
    """
    paged_list = PagedList.of(reader, request, list_id)
    after = paged_list.read_token()
    await reader.wait_until_fresh()
    listed, last = await view_list.read(reader.views, after, get_size(request))
    items = await join([data for _, data in listed])
    budget = reader.views.create_budget()
    fitting = sum(1 for _ in takewhile(budget.take, map(len, items)))
    if fitting < len(items):
        items, last = items[:fitting], listed[fitting - 1][0]
    return paged_list.build_page(items, last)


class FilteredList(msgspec.Struct, frozen=True):
    """The views of an index that are selected.

    Args:
        window: the range of the index.
        selects_member: takes a member.
        selects_view: takes a serialised view.
    """

    window: Window
    selects_member: Callable[[str], bool]
    selects_view: Callable[[bytes], bool]

    async def read(self, views: ViewReader, after: str, size: int) -> tuple[Sequence[Listed], str]:
        """See `ViewList`."""
        result: list[Listed] = []
        budget, checked = views.create_budget(), 0
        members_size = size + 1
        for _ in range(MAX_MEMBER_READS):
            members = await views.get_members(self.window, after, members_size)
            for start in range(0, len(members), CHUNK_SIZE):
                chunk = members[start : start + CHUNK_SIZE]
                selected = [member for member in chunk if self.selects_member(member)]
                current = await _read_current_views(views, self.window.index, selected)
                for member in chunk:
                    data = current.get(member)
                    if data is not None and self.selects_view(data):
                        if len(result) == size or not budget.take(len(data)):
                            return result, after
                        result.append((member, data))
                    after = member
                checked += len(selected)
                if checked >= MAX_CHECKED:
                    return result, after
            if len(members) < members_size:
                return result, ""
            members_size = MEMBERS_SIZE
        return result, after


class SortedList(msgspec.Struct, frozen=True):
    """The views of an index that are selected, in another order than that of the index.

    Args:
        window: the range of the index.
        selects_view: takes a serialised view.
        get_member: takes a serialised view; returns its member in the index of `long`.
        long: the same list, from an index in the wanted order; for more than MAX_CHECKED views.
    """

    window: Window
    selects_view: Callable[[bytes], bool]
    get_member: Callable[[bytes], str]
    long: FilteredList

    async def read(self, views: ViewReader, after: str, size: int) -> tuple[Sequence[Listed], str]:
        """See `ViewList`."""
        members = await views.get_members(self.window, "", MAX_CHECKED + 1)
        if len(members) > MAX_CHECKED:
            return await self.long.read(views, after, size)
        found: list[Listed] = []
        for start in range(0, len(members), CHUNK_SIZE):
            chunk = members[start : start + CHUNK_SIZE]
            current = (await _read_current_views(views, self.window.index, chunk)).values()
            found += [(self.get_member(data), data) for data in current if self.selects_view(data)]
        remaining = sorted((each for each in found if not after or each[0] < after), reverse=True)
        budget = views.create_budget()
        page = list(takewhile(lambda each: budget.take(len(each[1])), remaining[:size]))
        return page, page[-1][0] if len(page) < len(remaining) else ""


async def _read_current_views(views: ViewReader, index: str, members: list[str]) -> dict[str, bytes]:
    """Return views by member, without those that have left the index, and those that cannot be read."""
    found = await read_current_views(views, index, members) if members else []
    return {member: data for member, data in found if isinstance(data, bytes)}
