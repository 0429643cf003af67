"""Pages of a view's history, newest first, and the search for a time in it.

How it works. A history is a Redis hash from version to entry, and every version from 1 to the view's own
has one. A page is therefore a range of versions, read with one HMGET; its token is the last version of the
page. Times never decrease from version to version, so the first entry of a period is found by search: each
read fetches FAN_OUT entries spread over the remaining range, which divides the range by FAN_OUT.
"""

from collections.abc import Callable

from query_server.view_reader import ViewReader
from runtime.grpc.request_tokens import invalid_page_token

FAN_OUT = 32
"""Parts into which one read divides the range that is searched."""


async def read_page(
    views: ViewReader, view_id: str, version: int, after: str, size: int, oldest: int = 1
) -> tuple[list[bytes], str]:
    """Return the serialised entries of a page, and the version after which the next page begins.

    Args:
        views: the projection.
        view_id: the view's id.
        version: the newest version to include, at most the view's own.
        after: the last version of the page before, as the caller claims; empty for the first page.
        size: the maximum number of entries.
        oldest: the oldest version to include.

    Returns:
        The entries; the version is empty on the last page.

    Raises:
        RpcError: `PAGE_TOKEN_INVALID`, `after` is not a version; and the errors of `ViewReader`.
    """
    if after and not after.isdecimal():
        raise invalid_page_token()
    newest = min(int(after) - 1, version) if after else version
    versions = range(newest, max(newest - size, oldest - 1), -1)
    if not versions:
        return [], ""
    entries = await views.get_history_entries(view_id, versions)
    return entries, str(versions[-1]) if versions[-1] > oldest else ""


async def find_first_version(
    views: ViewReader, view_id: str, version: int, is_in_period: Callable[[bytes], bool]
) -> int:
    """Return the first version whose entry is in a period without end; `version + 1` if there is none.

    Args:
        views: the projection.
        view_id: the view's id.
        version: the view's version.
        is_in_period: whether a serialised entry is from the period's start or later.
    """
    first, end = 1, version + 1  # the result is in first..end
    while first < end:
        step = max(1, (end - first) // FAN_OUT)
        probes = range(first, end, step)
        entries = await views.get_history_entries(view_id, probes)
        matches = [probe for probe, entry in zip(probes, entries, strict=True) if is_in_period(entry)]
        # Entries are ordered by time, so the matches are the last probes. The result is the first match, or
        # one of the versions between the probe before it and that match.
        end = matches[0] if matches else end
        last_before = probes[len(probes) - len(matches) - 1] if len(matches) < len(probes) else first - 1
        first = last_before + 1
    return first
