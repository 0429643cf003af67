"""Pages of several lists merged into one, filtered, and joined with what the views refer to.

How it works. As `list_pages.read_page`, over many indexes: one round trip reads a chunk of each. An index
whose chunk is full may have more members behind it, so only members down to the highest of such ends are
certain to be the next ones; the rest is read again. The page token is the last member of the page. Members
are sorted alike in every index, so a view that moves from one of them to another keeps its place.

A selection leaves out what no index leaves out. The chunks then grow beyond the page, and the page ends early
after MAX_CHECKED_VIEWS.
"""

from collections.abc import Awaitable, Callable, Sequence
from itertools import takewhile

import msgspec

from contracts.view_layout import id_of_member
from query_server.fresh_reader import FreshReader
from query_server.pages import Page, PagedList, PageRequest, get_size
from query_server.view_reader import ListedView, ViewReader, Window

MAX_READS = 5
"""Reads of the indexes for one page."""
MIN_CHUNK_SIZE = 2
"""Members of one index in the first read. Lists share a page, so most of what is read is read in vain: a page
of 20 from 1,000 lists of 20 takes 7 ms, and 11 ms with 10 members each."""
GROWTH = 4
"""Factor by which the chunks of the next read are larger, for pages that few of the lists fill."""
MAX_CHUNK_SIZE = 2_000
"""Members of one index in one read."""
MAX_CHECKED_VIEWS = 1_000
"""Views that are read for one page."""


class Selection(msgspec.Struct, frozen=True):
    """Which of the listed views a page has."""

    by_member: Callable[[str], bool] = lambda _: True
    """Takes a member of an index."""
    by_view: Callable[[bytes], bool] = lambda _: True
    """Takes a serialised view."""


EVERYTHING = Selection()

Join = Callable[[Sequence[bytes]], Awaitable[Sequence[bytes]]]
"""Takes serialised views, and returns the item of each: with what it refers to."""


async def read_page(
    reader: FreshReader,
    find_windows: Callable[[], Awaitable[Sequence[Window]]],
    list_id: str,
    request: PageRequest,
    selection: Selection = EVERYTHING,
    join: Join | None = None,
) -> Page:
    """Return the requested page of the merged list.

    Args:
        reader: the projection.
        find_windows: returns the indexes. The next page may have others, and continues in those.
        list_id: identifies the list, including every filter of the request.
        request: the request.
        selection: of the listed views.
        join: makes the items of the page from its views; None if the items are the views.

    Raises:
        RpcError: `PAGE_TOKEN_INVALID`; an error of `find_windows`, of `join` or of the reader.
    """
    paged_list = PagedList.of(reader, request, list_id)
    after = paged_list.read_token()
    windows = await find_windows()
    await reader.wait_until_fresh()
    listed, last = await _read_views(reader.views, windows, after, get_size(request), selection)
    items: Sequence[bytes] = [data for _, data in listed]
    if join is not None:
        items = await join(items)
        budget = reader.views.create_budget()
        fitting = sum(1 for _ in takewhile(budget.take, map(len, items)))
        if fitting < len(items):
            items, last = items[:fitting], listed[fitting - 1][0]
    return paged_list.build_page(items, last)


async def _read_views(
    views: ViewReader, windows: Sequence[Window], after: str, size: int, selection: Selection
) -> tuple[list[tuple[str, bytes]], str]:
    """Return members with their serialised views, and the last member that was read for them.

    That one is empty at the end of the list.
    """
    result: list[tuple[str, bytes]] = []
    checked = 0
    budget = views.create_budget()
    for number in range(MAX_READS):
        missing = size - len(result)
        chunk_size = max(MIN_CHUNK_SIZE, 2 * missing // len(windows)) * GROWTH**number
        chunk_size = min(chunk_size, missing if selection is EVERYTHING else MAX_CHUNK_SIZE)
        candidates, has_more = await _read_members(views, windows, after, chunk_size)
        while candidates:
            wanted = size - len(result) + 1 if selection is EVERYTHING else MAX_CHECKED_VIEWS - checked
            chunk = candidates[: budget.plan_read(min(len(candidates), wanted))]
            del candidates[: len(chunk)]
            selected = [entry for entry in chunk if selection.by_member(entry[0])]
            checked += len(selected)
            current = await _read_current_views(views, selected)
            for member, index in chunk:
                data = current.get((member, index))
                # A view that moves between the reads may be found in two indexes.
                if data is not None and selection.by_view(data) and (not result or result[-1][0] != member):
                    if len(result) == size or not budget.take(len(data)):
                        return result, after
                    result.append((member, data))
                after = member
            if checked >= MAX_CHECKED_VIEWS:
                return result, after
        if not has_more:
            return result, ""
    return result, after


async def _read_current_views(
    views: ViewReader, members: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], bytes]:
    """Return the views of members of indexes, without those that are no entry of their view any more."""
    found = await views.get_listed_views([id_of_member(member) for member, _ in members]) if members else []
    return {
        (member, index): view.data
        for (member, index), view in zip(members, found, strict=True)
        if isinstance(view, ListedView) and views.has_entry(view, (index, member))
    }


async def _read_members(
    views: ViewReader, windows: Sequence[Window], after: str, size: int
) -> tuple[list[tuple[str, str]], bool]:
    """Return the next members with their indexes, newest first, and whether there are more behind them.

    At most `size` + 1 of each index are read.
    """
    chunks = await views.get_merged_members(windows, after, size + 1)
    end = max((members[-1] for _, members in chunks if len(members) > size), default="")
    merged = sorted(
        ((member, index) for index, members in chunks for member in members if member >= end), reverse=True
    )
    return merged, bool(end)
