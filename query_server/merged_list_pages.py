"""Pages of several lists merged into one, newest first.

How it works. As `list_pages.read_page`, over many indexes: one round trip reads a chunk of each. An index
whose chunk is full may have more members behind it, so only members down to the highest of such ends are
certain to be the next ones; the rest is read again. The page token is the last member of the page. Members
are sorted alike in every index, so a view that moves from one of them to another keeps its place.
"""

from collections.abc import Awaitable, Callable, Sequence

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


async def read_page(
    reader: FreshReader,
    find_windows: Callable[[], Awaitable[Sequence[Window]]],
    list_id: str,
    request: PageRequest,
) -> Page:
    """Return the requested page of the merged list.

    Args:
        reader: the projection.
        find_windows: returns the indexes. The next page may have others, and continues in those.
        list_id: identifies the list, including every filter of the request.
        request: the request.

    Raises:
        RpcError: `PAGE_TOKEN_INVALID`; an error of `find_windows` or of the reader.
    """
    paged_list = PagedList.of(reader, request, list_id)
    after = paged_list.read_token()
    windows = await find_windows()
    await reader.wait_until_fresh()
    views, last = await _read_views(reader.views, windows, after, get_size(request))
    return paged_list.build_page(views, last)


async def _read_views(
    views: ViewReader, windows: Sequence[Window], after: str, size: int
) -> tuple[list[bytes], str]:
    """Return serialised views, and the last member that was read for them; empty at the end of the list."""
    result: list[bytes] = []
    listed = ""
    budget = views.create_budget()
    for number in range(MAX_READS):
        missing = size - len(result)
        chunk_size = max(MIN_CHUNK_SIZE, 2 * missing // len(windows)) * GROWTH**number
        candidates, has_more = await _read_members(views, windows, after, min(chunk_size, missing))
        while candidates:
            count = budget.plan_read(min(len(candidates), size - len(result) + 1))
            chunk = candidates[:count]
            found = await views.get_listed_views([id_of_member(member) for member, _ in chunk])
            for (member, index), view in zip(chunk, found, strict=True):
                # A view that moves between the reads may be found in two indexes.
                is_current = isinstance(view, ListedView) and views.has_entry(view, (index, member))
                if isinstance(view, ListedView) and is_current and member != listed:
                    if len(result) == size or not budget.take(len(view.data)):
                        return result, after
                    result.append(view.data)
                    listed = member
                after = member
            del candidates[:count]
        if not has_more:
            return result, ""
    return result, after


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
