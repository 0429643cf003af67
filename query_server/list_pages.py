"""Pages of a list: the members of an index, each checked against the view that it refers to.

How it works. The members and their views are read one after the other, so a view may change in between.
Each view stores its current index entries. A member is dropped if its view no longer exists, or no longer
has that entry, so a page never shows a view in a list to which it does not belong. More members are then
read to fill the page, up to a limit; a page may therefore hold fewer views than requested and still have a
next page. The page token is the last member read, not an offset, so views that arrive meanwhile shift
nothing.
"""

from contracts.view_layout import id_of_member
from query_server.fresh_reader import FreshReader
from query_server.pages import Page, PagedList, PageRequest, get_size
from query_server.view_reader import ViewReader, Window

MAX_READS = 5
"""Reads of the index for one page."""


async def read_page(reader: FreshReader, window: Window, request: PageRequest) -> Page:
    """Return the requested page of a list, newest first.

    Args:
        reader: the projection.
        window: the range of the index that lists the views; it reflects every filter of the request.
        request: the request.

    Raises:
        RpcError: `PAGE_TOKEN_INVALID`, or an error of the reader.
    """
    paged_list = PagedList(reader.tokens, request, str(window))
    after = paged_list.read_token()
    await reader.wait_until_fresh()
    views, last = await _read_views(reader.views, window, after, get_size(request))
    return paged_list.build_page(views, last)


async def read_first(reader: FreshReader, index: str, count: int) -> list[bytes]:
    """Return the serialised views of an index, newest first, at most `count`.

    Raises:
        RpcError: an error of the reader.
    """
    await reader.wait_until_fresh()
    views, _ = await _read_views(reader.views, Window(index), "", count)
    return views


async def _read_views(views: ViewReader, window: Window, after: str, size: int) -> tuple[list[bytes], str]:
    """Return serialised views of a list, and the last member that was read for them.

    Args:
        views: the projection.
        window: the range of the index that lists the views.
        after: the member before the first one; empty to begin with the newest.
        size: the maximum number of views.

    Returns:
        The views; the member is empty at the end of the list.
    """
    result: list[bytes] = []
    for _ in range(MAX_READS):
        missing_count = size - len(result)
        # One member more than needed shows whether there is a next page.
        members = await views.get_members(window, after, missing_count + 1)
        candidates = members[:missing_count]
        result += await _read_current_views(views, window.index, candidates)
        if len(members) <= missing_count:
            return result, ""
        after = candidates[-1]
        if len(result) == size:
            break
    return result, after


async def _read_current_views(views: ViewReader, index: str, members: list[str]) -> list[bytes]:
    """Return the views of the members that are still index entries of their views."""
    if not members:
        return []
    listed_views = await views.get_listed_views([id_of_member(member) for member in members])
    return [
        view.data
        for member, view in zip(members, listed_views, strict=True)
        if view is not None and (index, member) in view.entries
    ]
