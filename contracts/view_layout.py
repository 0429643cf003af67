"""Where views lie in Redis: the contract between the projector, which writes, and the query server.

One hash per view under `view:<projection>:<generation>:{<id>}` with the fields

    data      the serialised view message, served as it is
    version   the version of the last event that the view has heard
    revision  how often the hash was written; every write compares it first, and the version
    entries   the index entries that the view has now, JSON [[index key, member], ...]
    amounts   what the view adds to counters now, JSON [[total key, counter, amount in digits], ...]
    added     what of it the counters hold, in the same form: less only where a counter was full
    parked    JSON, only while the aggregate is parked in this projection
    ...       readable columns, for people

A view whose first event could not be applied has version 0 and no `data`.

What is derived from views lies beside them:

    index:<projection>:<generation>:{<name>/<values>}    sorted set, all scores 0, ordered by member
    total:<projection>:<generation>:{<name>/<values>}    hash of counters, the sums over all views;
                                                         a counter that is zero is not there
    tally:<projection>:<generation>:{<name>/<values>}    hash of counters that only grow: what each event adds
                                                         is added once
    log:<projection>:<generation>:{<id>}                 hash: a version of the view -> what its event told, a
                                                         serialised message
    changes:<projection>:<generation>:{<name>/<values>}  sorted set of view ids, each with the number of its
                                                         last change among these; CHANGES_KEPT at most

All of that is written in one step with the view. Whenever views have changed, the channel
`changed:<projection>:<generation>` carries one message for all of them, msgpack [[view id, ...],
[changes key, ...]]. A subscriber that was cut off reads again what it follows.

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
CHANGES_KEPT = 10_000
"""How many views a set of changes names at the most, those that changed last."""


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

    def total(self, name: str, *values: str) -> str:
        """Return the key of the counters of the views that have these values."""
        return f"{self._scope('total')}:{{{'/'.join((name, *values))}}}"

    def tally(self, name: str, *values: str) -> str:
        """Return the key of the counters of the events that have these values."""
        return f"{self._scope('tally')}:{{{'/'.join((name, *values))}}}"

    def log(self, view_id: str) -> str:
        """Return the key of what one view's events told."""
        return f"{self._scope('log')}:{{{view_id}}}"

    def changes(self, name: str, *values: str) -> str:
        """Return the key of the last changes of the views that have these values."""
        return f"{self._scope('changes')}:{{{'/'.join((name, *values))}}}"

    @property
    def changed(self) -> str:
        """The channel that names the views that have changed."""
        return self._scope("changed")

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns of SCAN that the keys of all views and of all that is derived from them match."""
        kinds = ("view", "index", "total", "tally", "log", "changes")
        return tuple(f"{self._scope(kind)}:*" for kind in kinds)

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


LAST_MICROS = 16**16 - 1


def index_bound(nanos: int) -> str:
    """Return what the members of all views from a time on are not below, and those of earlier ones are.

    Args:
        nanos: since 1970; any number. Views are placed at whole microseconds, from 1970 on.
    """
    micros = -(-nanos // 1000)  # upwards: a microsecond that began before the bound is earlier than it
    return f"{min(max(micros, 0), LAST_MICROS):016x}"


def id_of_member(member: str) -> str:
    """Return the id of the view that an index member stands for."""
    return member.partition(":")[2]
