"""When a view has ended, so that housekeeping may archive it. Pure."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from msgspec.structs import replace

from contracts.view_layout import View, index_member

V = TypeVar("V", bound=Message)


class Archival(msgspec.Struct, Generic[V], frozen=True):
    """The views of a projection that may be archived: those of aggregates that have ended."""

    indexes: tuple[str, ...]
    """The keys of indexes that together list every view that has ended, and perhaps others. Their members
    begin with a time (`index_member`) that is not later than the end."""
    get_end: Callable[[V], Timestamp | None]
    """Returns the time of the event with which the aggregate ended; None if it has not ended."""
    kept_indexes: tuple[str, ...] = ()
    """The names of indexes in which a view stays after it was archived. A projection with contributions needs
    one that lists all contributors of a key: by it `diptych verify` confirms a counter."""

    def at(self, view: View) -> "Archival[V]":
        """Return the same archival in the generation of this view."""
        return replace(self, indexes=tuple(map(view.move, self.indexes)))


def archival_by_end_time(view: View) -> Archival[Any]:
    """Return the archival of views with a field `end_time`, which `ended_entries` lists."""
    return Archival(
        (view.index("ended"),), lambda ended: ended.end_time if ended.HasField("end_time") else None
    )


def ended_entries(view: View, id_field: str) -> Callable[[Any], list[tuple[str, str]]]:
    """Return a function that returns the index entry of a view with an `end_time`; none without it."""
    index = view.index("ended")

    def list_entries(ended: Any) -> list[tuple[str, str]]:
        if not ended.HasField("end_time"):
            return []
        return [(index, index_member(ended.end_time.ToMicroseconds(), getattr(ended, id_field)))]

    return list_entries
