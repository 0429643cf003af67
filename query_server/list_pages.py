"""Pages of a list: the members of an index, each checked against the view that it refers to.

How it works. The members and their views are read one after the other, so a view may change in between.
Each view stores its current index entries. A member is dropped if its view no longer exists, or no longer
has that entry, so a page never shows a view in a list to which it does not belong, and if its view cannot be
read: the others are listed, and the log names that one. More members are then
read to fill the page, up to a limit, and a page ends before it becomes too large for a response. So a page
may hold fewer views than requested and still have a next page. The page token is the last member of the page,
not an offset, so views that arrive meanwhile shift nothing.
"""

from contracts.view_layout import id_of_member
from query_server.fresh_reader import FreshReader
from query_server.pages import Page, PagedList, PageRequest, get_size
from query_server.view_reader import ListedView, StoredView, ViewReader, Window
from runtime.grpc.rpc_error import RpcError

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
    paged_list = PagedList.of(reader, request, str(window))
    after = paged_list.read_token()
    await reader.wait_until_fresh()
    views, last = await _read_views(reader.views, window, after, get_size(request))
    return paged_list.build_page(views, last)


async def read_all(reader: FreshReader, index: str, max_count: int) -> list[bytes]:
    """Return all serialised views of an index, newest first.

    Raises:
        RpcError: `RESPONSE_TOO_LARGE`, there are more than `max_count`, or too many bytes; an error of the
            reader; `VIEW_UNREADABLE`, one of them cannot be read.
    """
    await reader.wait_until_fresh()
    views, after = await _read_views(reader.views, Window(index), "", max_count, complete=True)
    if after:
        raise RpcError(
            "RESPONSE_TOO_LARGE", "the list is too long for one response", {"most": str(max_count)}
        )
    return views


async def _read_views(
    views: ViewReader, window: Window, after: str, size: int, *, complete: bool = False
) -> tuple[list[bytes], str]:
    """Return serialised views of a list, and the last member that was read for them.

    Args:
        views: the projection.
        window: the range of the index that lists the views.
        after: the member before the first one; empty to begin with the newest.
        size: the maximum number of views.
        complete: whether a view that cannot be read is an error.

    Returns:
        The views; the member is empty at the end of the list.
    """
    result: list[bytes] = []
    budget = views.create_budget()
    for _ in range(MAX_READS):
        missing_count = size - len(result)
        # One member more than needed shows whether there is a next page.
        members = await views.get_members(window, after, missing_count + 1)
        candidates = members[:missing_count]
        while candidates:
            count = budget.plan_read(len(candidates))
            for member, data in await read_current_views(views, window.index, candidates[:count]):
                if isinstance(data, RpcError):
                    if complete:
                        raise data
                elif data is not None:
                    if not budget.take(len(data)):
                        return result, after
                    result.append(data)
                after = member
            del candidates[:count]
        if len(members) <= missing_count:
            return result, ""
        if len(result) == size:
            break
    return result, after


async def read_current_views(
    views: ViewReader, index: str, members: list[str]
) -> list[tuple[str, StoredView]]:
    """Return each member with its view; None for a member that is no index entry of its view any more."""
    listed_views = await views.get_listed_views([id_of_member(member) for member in members])
    current: list[tuple[str, StoredView]] = []
    for member, view in zip(members, listed_views, strict=True):
        if isinstance(view, ListedView):
            current.append((member, view.data if views.has_entry(view, (index, member)) else None))
        else:
            current.append((member, view))
    return current
