"""Pages of a list: the members of an index, each checked against the view that it refers to.

How it works. The members and their views are read one after the other, so a view may change in between.
Each view stores its current index entries. A member is dropped if its view no longer exists, or no longer
has that entry, so a page never shows a view in a list to which it does not belong. More members are then
read to fill the page, up to a limit; a page may therefore hold fewer views than requested and still have a
next page. The page token is the last member read, not an offset, so views that arrive meanwhile shift
nothing.
"""

from contracts.view_layout import id_of_member
from query_server.view_reader import ViewReader, Window

MAX_READS = 5
"""Reads of the index for one page."""


async def read_page(views: ViewReader, window: Window, after: str, size: int) -> tuple[list[bytes], str]:
    """Return the serialised views of a page, and the last member that was read for it.

    Args:
        views: the projection.
        window: the range of the index that lists the views.
        after: the last member of the page before; empty for the first page.
        size: the maximum number of views.

    Returns:
        The views, newest first; the member is empty on the last page.
    """
    page: list[bytes] = []
    for _ in range(MAX_READS):
        missing_count = size - len(page)
        # One member more than needed shows whether there is a next page.
        members = await views.get_members(window, after, missing_count + 1)
        candidates = members[:missing_count]
        page += await _read_current_views(views, window.index, candidates)
        if len(members) <= missing_count:
            return page, ""
        after = candidates[-1]
        if len(page) == size:
            break
    return page, after


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
