"""Pages of a view's log: what its events told, newest first."""

from query_server.views import ViewReader
from runtime import pages


async def page(
    views: ViewReader, view_id: str, version: int, after: str, size: int
) -> tuple[list[bytes], str]:
    """Return the serialised entries of a page, and what the next page follows on.

    Args:
        views: where the view and its log are.
        view_id: whose log.
        version: the view's; each event up to it has told something.
        after: the version that the page follows on, as a caller claims; empty for the first page.
        size: how many entries at the most.

    Returns:
        The entries; what the next page follows on is empty on the last page.

    Raises:
        Refusal: `PAGE_TOKEN_INVALID`, it follows on no version; and whatever `ViewReader` raises.
    """
    if after and not after.isdecimal():
        raise pages.refused()
    newest = min(int(after) - 1, version) if after else version
    versions = range(newest, max(newest - size, 0), -1)
    if not versions:
        return [], ""
    entries = await views.told(view_id, versions)
    return entries, str(versions[-1]) if versions[-1] > 1 else ""
