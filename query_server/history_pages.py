"""Pages of a view's history, newest first, and the search for a time in it.

How it works. A history is a Redis hash from version to entry, and every version up to the view's own has one,
from 1 on or from the first that is not archived, unless its event was skipped or says that a person was
forgotten. A page is therefore a range of versions, which ends before
it becomes too large for a response; its token is the last version of the page. Times never decrease from
version to version, so the first entry of a period is found by search: each read fetches FAN_OUT entries
spread over the remaining range, which divides the range by FAN_OUT.
"""

from google.protobuf.message import Message

from query_server.fresh_reader import FreshReader
from query_server.history_entries import HistoryEntries, ReadTime
from query_server.not_found import NotFound
from query_server.pages import Page, PagedList, PageRequest, get_size
from query_server.timestamps import Period
from query_server.view_reader import ViewReader
from runtime.grpc.request_tokens import invalid_page_token

FAN_OUT = 32
"""Parts into which one read divides the range that is searched."""

NO_BOUND = 2**63
"""Above every version."""


async def read_page(
    reader: FreshReader,
    view_id: str,
    missing: NotFound,
    request: PageRequest,
    entry: type[Message] | None = None,
) -> Page:
    """Return the requested page of a view's history, newest first.

    Args:
        reader: of the call.
        view_id: the view's id.
        missing: the error if the view does not exist.
        request: the request.
        entry: the entries' message type; an entry that cannot be read then has its version alone.

    Raises:
        RpcError: `missing`, the view does not exist; `PAGE_TOKEN_INVALID`; an error of the reader.
    """
    paged_list = PagedList.of(reader, request, reader.view.history(view_id))
    before = _read_page_token(paged_list)
    history = await reader.get_history(view_id, missing)
    end = min(before, history.stop)
    stored = HistoryEntries(reader.views, view_id, entry)
    entries, last = await _read_entries(stored, history.start, end, get_size(request))
    return paged_list.build_page(entries, last, _archived_before(history))


async def read_page_of_period(
    reader: FreshReader,
    view_id: str,
    missing: NotFound,
    request: PageRequest,
    period: Period,
    read_time: ReadTime,
    entry: type[Message] | None = None,
) -> Page:
    """Return the requested page of the entries of a period.

    Args:
        reader: of the call.
        view_id: the view's id.
        missing: the error if the view does not exist.
        request: the request.
        period: of the entries.
        read_time: returns an entry's time.
        entry: as for `read_page`.

    Raises:
        RpcError: as `read_page`.
    """
    paged_list = PagedList.of(reader, request, f"{reader.view.history(view_id)} {period}")
    before = _read_page_token(paged_list)
    history = await reader.get_history(view_id, missing)
    oldest, end = history.start, history.stop
    if period.start is not None:
        oldest = await find_first_version(reader.views, view_id, history, period.start, read_time)
    if period.end is not None:
        end = await find_first_version(reader.views, view_id, history, period.end, read_time)
    stored = HistoryEntries(reader.views, view_id, entry)
    entries, last = await _read_entries(stored, oldest, min(before, end), get_size(request))
    return paged_list.build_page(entries, last, _archived_before(history))


def _archived_before(history: range) -> int:
    """Return the version below which the entries are archived; 0 if none are."""
    return history.start if history.start > 1 else 0


def _read_page_token(paged_list: PagedList) -> int:
    """Return the version below which the page begins; NO_BOUND for the first page."""
    last = paged_list.read_token()
    if last and not last.isdecimal():
        raise invalid_page_token()
    return int(last) if last else NO_BOUND


async def _read_entries(history: HistoryEntries, oldest: int, end: int, size: int) -> tuple[list[bytes], str]:
    """Return the newest entries of the versions from `oldest` on and below `end`, at most `size`.

    Returns:
        The serialised entries, newest first, and the version of the last one; empty if it is the oldest.
    """
    result: list[bytes] = []
    budget = history.views.create_budget()
    versions = range(end - 1, max(end - 1 - size, oldest - 1), -1)
    while unread := versions[len(result) :]:
        for entry in await history.read(unread[: budget.plan_read(len(unread))]):
            if not budget.take(len(entry)):
                return result, str(versions[len(result) - 1])
            result.append(entry)
    return result, str(versions[-1]) if versions and versions[-1] > oldest else ""


async def read_last_entry_before(
    views: ViewReader, view_id: str, history: range, time: int, read_time: ReadTime
) -> bytes | None:
    """Return the last entry that is earlier than a time; empty if there is none, None if it is archived.

    Raises:
        RpcError: `VIEW_UNREADABLE`, neither the entry nor those before it can be read.

    Args:
        views: the projection.
        view_id: the view's id.
        history: the versions with an entry.
        time: in nanoseconds since 1970.
        read_time: returns an entry's time.
    """
    last = await find_first_version(views, view_id, history, time, read_time) - 1
    if last < history.start:
        return None if last else b""
    versions = range(last, max(history.start - 1, last - FAN_OUT), -1)
    return await HistoryEntries(views, view_id).read_first(versions)


async def find_first_version(
    views: ViewReader, view_id: str, history: range, time: int, read_time: ReadTime
) -> int:
    """Return the first version whose entry is of a time or later; `history.stop` if there is none.

    Args:
        views: the projection.
        view_id: the view's id.
        history: the versions with an entry.
        time: in nanoseconds since 1970.
        read_time: returns an entry's time.
    """
    first, end = history.start, history.stop  # the result is in first..end
    while first < end:
        step = max(1, (end - first) // FAN_OUT)
        probes = range(first, end, step)
        times = await HistoryEntries(views, view_id).read_times(probes, read_time)
        matches = [probe for probe, each in zip(probes, times, strict=True) if each >= time]
        # Entries are ordered by time, so the matches are the last probes. The result is the first match, or
        # one of the versions between the probe before it and that match.
        end = matches[0] if matches else end
        last_before = probes[len(probes) - len(matches) - 1] if len(matches) < len(probes) else first - 1
        first = last_before + 1
    return first
