"""A view's log, which holds what its events told: its pages, newest first, and where a time is in it."""

from collections.abc import Callable

from query_server.view_reader import ViewReader
from runtime.grpc.request_tokens import invalid_page_token


async def page(
    views: ViewReader, view_id: str, version: int, after: str, size: int, oldest: int = 1
) -> tuple[list[bytes], str]:
    """Return the serialised entries of a page, and what the next page follows on.

    Args:
        views: where the view and its log are.
        view_id: whose log.
        version: the newest that counts; each event up to the view's own has told something.
        after: the version that the page follows on, as a caller claims; empty for the first page.
        size: how many entries at the most.
        oldest: the oldest version that counts.

    Returns:
        The entries; what the next page follows on is empty on the last page.

    Raises:
        Refusal: `PAGE_TOKEN_INVALID`, it follows on no version; and whatever `ViewReader` raises.
    """
    if after and not after.isdecimal():
        raise invalid_page_token()
    newest = min(int(after) - 1, version) if after else version
    versions = range(newest, max(newest - size, oldest - 1), -1)
    if not versions:
        return [], ""
    entries = await views.history_entries(view_id, versions)
    return entries, str(versions[-1]) if versions[-1] > oldest else ""


FAN = 32
"""Entries that are read at once to find a place among ever fewer."""


async def first_from(views: ViewReader, view_id: str, version: int, is_from: Callable[[bytes], bool]) -> int:
    """Return the first version whose entry is from a time on; the one after the last where none is.

    Reads 32 entries for each factor of 32 in the log's length.

    Args:
        views: where the view and its log are.
        view_id: whose log.
        version: the view's; each event up to it has told something.
        is_from: whether an entry is from that time or later; times never go back from version to version.
    """
    first, beyond = 1, version + 1  # the answer is one of first..beyond
    while first < beyond:
        step = max(1, (beyond - first) // FAN)
        places = range(first, beyond, step)
        entries = await views.history_entries(view_id, places)
        later = [place for place, entry in zip(places, entries, strict=True) if is_from(entry)]
        beyond = later[0] if later else beyond
        earlier = places[len(places) - len(later) - 1] if len(later) < len(places) else first - 1
        first = earlier + 1
    return first
