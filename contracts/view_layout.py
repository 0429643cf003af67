"""The layout of views in Redis: the contract between projectors, which write, and query servers.

One hash per view under `view:<projection>:<generation>:{<id>}` with the fields

    data           the serialised view message; query servers return it without parsing it
    version        the version of the last event of its stream
    revision       how often the hash was written; every write compares it and the version first
    entries        the view's current index entries, JSON [[index key, member], ...]
    contributions  what the view adds to counters, JSON [[counters key, counter, digits], ...]
    counted        the contributions that the counters hold; fewer only where a counter was full
    parked         JSON, only while the aggregate is parked in this projection
    ...            readable columns, for people

A view whose first event could not be applied has version 0 and no `data`.

Beside the views lies what is derived from them:

    index:<projection>:<generation>:{<name>/<values>}           sorted set, all scores 0, ordered by member
    counters:<projection>:<generation>:{<name>/<values>}        hash, the sums of all views' contributions;
                                                                a counter of zero is absent
    event_counters:<projection>:<generation>:{<name>/<values>}  hash, the sums of all events' contributions;
                                                                each event contributes once and for ever
    history:<projection>:<generation>:{<id>}                    hash, version -> the serialised entry of that
                                                                event
    change_feed:<projection>:<generation>:{<name>/<values>}     sorted set of view ids, scored by the number
                                                                of their last change; CHANGES_KEPT at most

One Lua call writes a view together with everything derived from it. After each write the channel
`changes:<projection>:<generation>` carries one notification for all changed views, msgpack
[[view id, ...], [change feed key, ...]]. Notifications carry no state: a subscriber that lost its connection
reads the views that it follows again.

All keys of a projection belong to one build, named by `build`. Projectors begin another build when that key
is missing, when `checkpoints` lacks a partition, or after PostgreSQL was restored: they delete `ready`, clear
the projection and read the stream from its start. Only projectors can clear a projection without losing
concurrent writes, so a rebuild in place deletes `build` and nothing else.
"""

from dataclasses import dataclass
from typing import Any

from diptych.projection.v1 import projection_pb2
from google.protobuf.message import Message

GENERATION = "2"
CHANGES_KEPT = 10_000
"""Views that a change feed holds at most, the most recently changed ones."""


@dataclass(frozen=True)
class View:
    """A view message, and the keys of its projection."""

    message: type[Message]
    projection: str
    source_streams: tuple[str, ...]
    """Stream types, for instance `ordering.order`."""
    generation: str = GENERATION

    @classmethod
    def of(cls, message: type[Message]) -> "View":
        """Return the view that a message's option `diptych.projection.v1.view` declares."""
        options: Any = message.DESCRIPTOR.GetOptions()
        declared = options.Extensions[projection_pb2.view]
        if not declared.projection:
            raise ValueError(f"{message.DESCRIPTOR.full_name} has no option diptych.projection.v1.view")
        return cls(message, declared.projection, tuple(declared.source_streams))

    def _scope(self, kind: str) -> str:
        return f"{kind}:{self.projection}:{self.generation}"

    def key(self, view_id: str) -> str:
        """Return the key of one view's hash."""
        return f"{self._scope('view')}:{{{view_id}}}"

    def index(self, name: str, *values: str) -> str:
        """Return the key of the sorted set of the views with these values."""
        return f"{self._scope('index')}:{{{'/'.join((name, *values))}}}"

    def counters(self, name: str, *values: str) -> str:
        """Return the key of the counters of the views with these values."""
        return f"{self._scope('counters')}:{{{'/'.join((name, *values))}}}"

    def event_counters(self, name: str, *values: str) -> str:
        """Return the key of the counters of the events with these values."""
        return f"{self._scope('event_counters')}:{{{'/'.join((name, *values))}}}"

    def history(self, view_id: str) -> str:
        """Return the key of one view's history entries."""
        return f"{self._scope('history')}:{{{view_id}}}"

    def change_feed(self, name: str, *values: str) -> str:
        """Return the key of the change feed of the views with these values."""
        return f"{self._scope('change_feed')}:{{{'/'.join((name, *values))}}}"

    @property
    def change_channel(self) -> str:
        """The channel of the notifications."""
        return self._scope("changes")

    @property
    def patterns(self) -> tuple[str, ...]:
        """SCAN patterns of the keys of all views and everything derived from them."""
        kinds = ("view", "index", "counters", "event_counters", "history", "change_feed")
        return tuple(f"{self._scope(kind)}:*" for kind in kinds)

    @property
    def build(self) -> str:
        """The key of `<incarnation>/<build id>`; every write of a projector compares it."""
        return self._scope("build")

    @property
    def checkpoints(self) -> str:
        """The key of the hash partition -> `<epoch>/<sequence>`: the views include all events up to there."""
        return self._scope("checkpoints")

    @property
    def ready(self) -> str:
        """The key of the caught-up marker: the incarnation that the projection has caught up with."""
        return self._scope("ready")

    @property
    def as_of(self) -> str:
        """The key of the hash partition -> time, in ms since 1970, up to which it holds all published events."""
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
    """Return the lower bound of the members of all views from a time on.

    Args:
        nanos: since 1970; any number. Index members have whole microseconds, from 1970 on.
    """
    micros = -(-nanos // 1000)  # upwards: a microsecond that began before the bound is earlier than it
    return f"{min(max(micros, 0), LAST_MICROS):016x}"


def id_of_member(member: str) -> str:
    """Return the view id of an index member."""
    return member.partition(":")[2]
