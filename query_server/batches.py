"""Batches: several views by id in one response, as far as they fit."""

from collections.abc import Sequence

import msgspec

from query_server.fresh_reader import FreshReader
from query_server.not_found import Archived
from query_server.wire_format import (
    ARCHIVED_IDS,
    ITEMS,
    MISSING_IDS,
    UNREAD_IDS,
    UNREADABLE_IDS,
    encode_repeated,
)
from runtime.grpc.rpc_error import RpcError


class Batch(msgspec.Struct, frozen=True):
    """Serialised views, in the order of the request."""

    views: Sequence[bytes]
    missing_ids: Sequence[str]
    """The ids of views that do not exist."""
    unread_ids: Sequence[str]
    """The ids that were not read, because the response would have become too large."""
    archived_ids: Sequence[str] = ()
    """The ids of views that exist and are archived."""
    unreadable_ids: Sequence[str] = ()
    """The ids of views that cannot be read."""

    def encode(self) -> bytes:
        """Return the serialised response: the views as field 1, the ids of the others as fields 2 to 5."""
        missing = encode_repeated(MISSING_IDS, map(str.encode, self.missing_ids))
        unread = encode_repeated(UNREAD_IDS, map(str.encode, self.unread_ids))
        archived = encode_repeated(ARCHIVED_IDS, map(str.encode, self.archived_ids))
        unreadable = encode_repeated(UNREADABLE_IDS, map(str.encode, self.unreadable_ids))
        return encode_repeated(ITEMS, self.views) + missing + unread + archived + unreadable


async def read_batch(reader: FreshReader, view_ids: Sequence[str]) -> Batch:
    """Return the views with these ids.

    Raises:
        RpcError: an error of the reader.
    """
    views: list[bytes] = []
    missing_ids: list[str] = []
    archived_ids: list[str] = []
    unreadable_ids: list[str] = []
    budget = reader.views.create_budget()
    position = 0
    while unread_ids := view_ids[position:]:
        chunk = unread_ids[: budget.plan_read(len(unread_ids))]
        for view_id, data in zip(chunk, await reader.get_all(chunk), strict=True):
            if isinstance(data, Archived):
                archived_ids.append(view_id)
            elif isinstance(data, RpcError):
                unreadable_ids.append(view_id)
            elif not data:
                missing_ids.append(view_id)
            elif budget.take(len(data)):
                views.append(data)
            else:
                return Batch(views, missing_ids, view_ids[position:], archived_ids, unreadable_ids)
            position += 1
    return Batch(views, missing_ids, (), archived_ids, unreadable_ids)
