"""Where views lie in Redis: the contract between the projector, which writes, and the query server.

One hash per view under `view:<projection>:<generation>:{<id>}` with the fields

    data      the serialised view message, served as it is
    version   the version of the last event that the view has heard
    revision  how often the hash was written; every write compares it first, and the version
    settled   the version up to which indexes and other derived keys have followed
    entries   the index entries that the view has now, JSON [[index key, member], ...]
    stale     earlier entries that may still stand in an index, in the same form
    parked    JSON, only while the aggregate is parked in this projection
    ...       readable columns, for people

A view whose first event could not be applied has version 0 and no `data`.

Indexes are sorted sets, all scores 0, ordered by member. Keys carry hash tags, so they work on a cluster.

Everything of a projection belongs to one filling of it, which `fill` names. The projectors begin another
when it is gone, when `progress` has lost a partition, or when PostgreSQL was restored: they delete
`present`, wipe the projection and read the feed from its start. Only they can wipe without losing what
they write meanwhile, so to rebuild a projection in place is to delete `fill`, and nothing else.
"""

from dataclasses import dataclass
from typing import Any

from diptych.projection.v1 import projection_pb2
from google.protobuf.message import Message

GENERATION = "1"


@dataclass(frozen=True)
class View:
    """A view message together with the keys that it and its projection are stored under."""

    message: type[Message]
    projection: str
    hears: tuple[str, ...]
    generation: str = GENERATION

    @classmethod
    def of(cls, message: type[Message]) -> "View":
        """Return the view that a message's option `diptych.projection.v1.view` declares."""
        options: Any = message.DESCRIPTOR.GetOptions()
        declared = options.Extensions[projection_pb2.view]
        if not declared.projection:
            raise ValueError(f"{message.DESCRIPTOR.full_name} has no option diptych.projection.v1.view")
        return cls(message, declared.projection, tuple(declared.hears))

    def _scope(self, kind: str) -> str:
        return f"{kind}:{self.projection}:{self.generation}"

    def key(self, view_id: str) -> str:
        """Return the key of one view's hash."""
        return f"{self._scope('view')}:{{{view_id}}}"

    def index(self, name: str, *values: str) -> str:
        """Return the key of a sorted set of the views that have these values."""
        return f"{self._scope('index')}:{{{'/'.join((name, *values))}}}"

    @property
    def patterns(self) -> tuple[str, str]:
        """The patterns of SCAN that the keys of all views and of all indexes match, and no others."""
        return self._scope("view") + ":*", self._scope("index") + ":*"

    @property
    def fill(self) -> str:
        """The key of `<incarnation>/<id>`, new with every filling; each write of a projector compares it."""
        return self._scope("fill")

    @property
    def progress(self) -> str:
        """The key of the hash partition -> `<epoch>/<sequence>`: all up to there is in the views."""
        return self._scope("progress")

    @property
    def present(self) -> str:
        """The key whose value is the incarnation that the projection has caught up with; absent before."""
        return self._scope("present")

    @property
    def as_of(self) -> str:
        """The key of the hash partition -> milliseconds since 1970 at which it held all then published."""
        return self._scope("as_of")

    @property
    def parked(self) -> str:
        """The key of the hash aggregate id -> JSON record of why it is parked."""
        return self._scope("parked")


def index_member(time_micros: int, view_id: str) -> str:
    """Return the index member of a view: ordered by time (microseconds since 1970), then by id."""
    return f"{time_micros:016x}:{view_id}"


def id_of_member(member: str) -> str:
    """Return the id of the view that an index member stands for."""
    return member.partition(":")[2]
