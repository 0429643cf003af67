"""The layout of views in Redis: the contract between projectors (writers) and query servers (readers).

A projection has one or more generations, each with all keys of its own (contracts/generations.py). One hash
per view under `view:<projection>:<generation>:{<id>}` with the fields

    data           the serialised view message; query servers return it as it is stored
    version        the version of the last event of its stream
    revision       number of writes of the hash; every write first compares it and the version
    entries        the view's current index entries, JSON [[index key, member], ...]
    contributions  the view's current contributions, JSON [[counters key, counter, digits], ...]
    counted        the contributions that counters include; fewer only after an overflow of a counter
    parked         JSON, only while the aggregate is parked in this projection. `stale_since` in it is a time
                   (ms since 1970, by Redis's clock) before which the view includes all committed events;
                   0 if that is unknown
    owner          the id of the person whose object it is, from the field that the view's option names;
                   missing in views that belong to nobody, and in those of earlier releases until they change
    archived       time (ms since 1970) at which housekeeping left a tombstone in place of the view, until the
                   view is restored: `version`, `revision`, `counted`, `owner`, and `entries` that stay
    history_from   the first version with a history entry, only once housekeeping has removed older ones
    ...            readable columns, for people

A view whose first event could not be applied has version 0 and no `data`.

Keys derived from the views:

    index:<projection>:<generation>:{<name>/<values>}           sorted set, all scores 0, ordered by member
    counters:<projection>:<generation>:{<name>/<values>}        hash, the sums of all views' contributions;
                                                                a counter of zero is absent
    event_counters:<projection>:<generation>:{<name>/<values>}  hash, the sums of all events' contributions;
                                                                each event contributes exactly once
    history:<projection>:<generation>:{<id>}                    hash, version -> the serialised entry of that
                                                                event
    change_feed:<projection>:<generation>:{<name>/<values>}     sorted set of at most MAX_CHANGE_FEED_SIZE
                                                                view ids, scored by the number of their
                                                                latest change

One Lua call writes a view together with everything derived from it. After each write the channel
`changes:<projection>:<generation>` carries one notification for all changed views, msgpack
[[view id, ...], [change feed key, ...]]. Notifications carry no state: after a lost connection a subscriber
reads its views again.

All keys of a projection belong to one build, which the key `build` names. Projectors begin another build when
that key is missing, when `checkpoints` lacks a partition, or after a restore of PostgreSQL: they delete
`ready`, clear the projection and read the stream from its start. Only projectors can clear a projection
without losing concurrent writes, so a rebuild in place deletes `build` alone.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from diptych.projection.v1 import projection_pb2
from google.protobuf.message import Message

GENERATION = "2"
"""The generation that serves unless another one was switched to; the number of this layout."""
MAX_CHANGE_FEED_SIZE = 10_000
"""Maximum number of views in a change feed; the most recently changed views stay."""


@dataclass(frozen=True)
class View:
    """A view message and the Redis keys of its projection."""

    message: type[Message]
    projection: str
    source_streams: tuple[str, ...]
    """Stream types, for instance `ordering.order`."""
    generation: str = GENERATION
    includes: tuple[tuple[str, str], ...] = ()
    """Stream types of other aggregates with the view's id, each with the name of the column that has the
    version of the last event that the view includes by way of its own events."""
    owner: str = ""
    """The field of the message with the id of the person to whom the object belongs; empty for nobody."""

    @classmethod
    def of(cls, message: type[Message]) -> "View":
        """Return the view declared by a message's option `diptych.projection.v1.view`.

        Raises:
            ValueError: the message has no such option, or no such owner.
        """
        options: Any = message.DESCRIPTOR.GetOptions()
        declared = options.Extensions[projection_pb2.view]
        if not declared.projection:
            raise ValueError(f"{message.DESCRIPTOR.full_name} has no option diptych.projection.v1.view")
        if declared.owner and declared.owner not in message.DESCRIPTOR.fields_by_name:
            raise ValueError(f"{message.DESCRIPTOR.full_name} has no field {declared.owner}, its owner")
        return cls(
            message,
            declared.projection,
            tuple(declared.source_streams),
            includes=tuple((each.stream_type, each.version_field) for each in declared.includes),
            owner=declared.owner,
        )

    def find_version_column(self, stream_type: str) -> str:
        """Return the column with the version of a stream that a view includes; empty if it includes none."""
        return "version" if stream_type in self.source_streams else dict(self.includes).get(stream_type, "")

    def at(self, generation: str) -> "View":
        """Return the same view in another generation."""
        return self if generation == self.generation else replace(self, generation=generation)

    def move(self, key: str) -> str:
        """Return a key of GENERATION as the key of this generation."""
        if self.generation == GENERATION:
            return key
        kind, projection, _, rest = key.split(":", 3)
        return f"{kind}:{projection}:{self.generation}:{rest}"

    def move_back(self, text: str) -> str:
        """Return a key of this generation, and what may follow it, as the key of GENERATION."""
        if self.generation == GENERATION:
            return text
        prefix = f":{self.projection}:"
        return text.replace(f"{prefix}{self.generation}:", f"{prefix}{GENERATION}:", 1)

    @property
    def serving(self) -> str:
        """The key of the string that names the serving generation; missing for GENERATION."""
        return f"serving:{self.projection}"

    @property
    def generations(self) -> str:
        """The key of the hash generation -> its record, of all that are kept beside the serving one."""
        return f"generations:{self.projection}"

    @property
    def skips(self) -> str:
        """The key of the hash of the events to skip, in all generations (contracts/skips.py)."""
        return f"skips:{self.projection}"

    def _scope(self, kind: str) -> str:
        return f"{kind}:{self.projection}:{self.generation}"

    def key(self, view_id: str) -> str:
        return f"{self._view_prefix}{view_id}}}"

    @cached_property  # a projector makes several keys of an event
    def _view_prefix(self) -> str:
        return f"{self._scope('view')}:{{"

    @cached_property
    def _index_prefix(self) -> str:
        return f"{self._scope('index')}:{{"

    def index(self, name: str, *values: str) -> str:
        """Return the key of the sorted set of all views with these values."""
        return f"{self._index_prefix}{'/'.join((name, *values))}}}"

    def counters(self, name: str, *values: str) -> str:
        """Return the key of the hash of counters over all views with these values."""
        return f"{self._scope('counters')}:{{{'/'.join((name, *values))}}}"

    def event_counters(self, name: str, *values: str) -> str:
        """Return the key of the hash of counters over all events with these values."""
        return f"{self._scope('event_counters')}:{{{'/'.join((name, *values))}}}"

    def history(self, view_id: str) -> str:
        return f"{self._scope('history')}:{{{view_id}}}"

    def change_feed(self, name: str, *values: str) -> str:
        """Return the key of the change feed of all views with these values."""
        return f"{self._scope('change_feed')}:{{{'/'.join((name, *values))}}}"

    @property
    def change_channel(self) -> str:
        return self._scope("changes")

    @property
    def change_channels(self) -> str:
        """The pattern of the change channels of all generations."""
        return f"changes:{self.projection}:*"

    @property
    def state_keys(self) -> tuple[str, ...]:
        """The keys that `patterns` do not cover; the first is the one that writes compare."""
        return (
            *(self.build, self.ready, self.code, self.as_of, self.checkpoints),
            *(self.parked, self.parked_since, self.archived),
        )

    @property
    def patterns(self) -> tuple[str, ...]:
        """SCAN patterns that cover every view and everything derived from the views."""
        kinds = ("view", "index", "counters", "event_counters", "history", "change_feed")
        return tuple(f"{self._scope(kind)}:*" for kind in kinds)

    @property
    def build(self) -> str:
        """The key of the string `<incarnation>/<build id>`; every write of a projector compares it."""
        return self._scope("build")

    @property
    def checkpoints(self) -> str:
        """The key of the hash partition -> `<epoch>/<sequence>`: the views include all events up to it."""
        return self._scope("checkpoints")

    @property
    def code(self) -> str:
        """The key of the version of the projection's code that began the build."""
        return self._scope("code")

    @property
    def ready(self) -> str:
        """The key of the caught-up marker. Its value is the incarnation whose events the views include."""
        return self._scope("ready")

    @property
    def as_of(self) -> str:
        """The key of the hash partition -> time (ms since 1970, by Redis's clock): the views include all
        events of the partition that were committed before; 0 if they have caught up and that is unknown."""
        return self._scope("as_of")

    @property
    def archived(self) -> str:
        """The key of the number of archived views, digits; missing for none."""
        return self._scope("archived")

    @property
    def parked(self) -> str:
        """The key of the hash aggregate id -> JSON record of the failure that parked the aggregate."""
        return self._scope("parked")

    @property
    def parked_since(self) -> str:
        """The key of the sorted set of the parked aggregates, scored by `stale_since` of their records."""
        return self._scope("parked_since")


def parse_checkpoint(value: bytes | str | None) -> tuple[str, int]:
    """Return a checkpoint's epoch and sequence; a sequence that cannot be read counts as 0, the start."""
    text = value if isinstance(value, str) else (value or b"").decode(errors="replace")
    epoch, _, sequence = text.partition("/")
    return epoch, int(sequence) if sequence.isascii() and sequence.isdecimal() else 0


def index_member(time_micros: int, view_id: str) -> str:
    """Return a view's index member, which sorts by time, then by id.

    Args:
        time_micros: microseconds since 1970, or any other number from 0 to MAX_MICROS to sort by.
        view_id: the view's id.
    """
    return f"{time_micros:016x}:{view_id}"


def ranked_member(rank: int, time_micros: int, view_id: str) -> str:
    """Return a view's index member, which sorts by rank, then by time, then by id.

    Args:
        rank: a number from 0 to 16**24 - 1.
        time_micros: microseconds since 1970.
        view_id: the view's id.
    """
    return f"{rank:024x}{index_member(time_micros, view_id)}"


MAX_MICROS = 16**16 - 1


def index_bound(nanos: int) -> str:
    """Return the lower bound of the index members of a time or later.

    Args:
        nanos: nanoseconds since 1970, any integer. Index members have whole microseconds from 1970 on.
    """
    micros = -(-nanos // 1000)  # rounded up: a microsecond that began before the bound is out of range
    return f"{min(max(micros, 0), MAX_MICROS):016x}"


def id_of_member(member: str) -> str:
    return member.partition(":")[2]


def time_of_member(member: str) -> str:
    """Return the time in a member of `index_member` or `ranked_member`; it compares to an `index_bound`."""
    return member.partition(":")[0][-16:]
