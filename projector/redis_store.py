"""Views in Redis: loading them, and writing them by compare-and-set.

How it works. A batch is one Lua call, which is the fastest way to write (151,000 views/s). The script
compares each view's version and revision and reports the views that another projector has changed as
conflicts. So a late projector cannot undo the index entries and counters of a newer version. Arguments are
packed, because redis-py takes 25 us per view to encode them one by one.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from time import time, time_ns
from typing import Any

import msgspec
from google.protobuf.message import DecodeError
from msgspec.structs import replace
from redis.asyncio import Redis

from contracts.view_layout import MAX_CHANGE_FEED_SIZE, View
from projector import traces
from projector.entry_lists import EntryList, EntryLists
from projector.lua import read_script
from projector.ports import NO_PARTITIONS, Advances
from projector.projection import Entry
from projector.records import Parked, Record, Update
from projector.redis_build import RedisBuild, pack
from runtime.process import logs

_json = msgspec.json.Encoder().encode
_read_entries = msgspec.json.Decoder(tuple[Entry, ...]).decode
_read_parked = msgspec.json.Decoder(Parked).decode

log = logs.get_logger(__name__)

PARKED_PAGE_SIZE = 1_000
"""Records of parked aggregates that are read at once."""


class RedisStore(RedisBuild):
    """The views of one projection. The port `Store` documents the methods.

    Args:
        redis: the connection.
        view: the layout of the views.
        code: the version of the projection's code.
        max_change_feed_size: the maximum number of views in a change feed.
    """

    def __init__(
        self, redis: Redis, view: View, code: str = "", max_change_feed_size: int = MAX_CHANGE_FEED_SIZE
    ) -> None:
        super().__init__(redis, view, code)
        self._max_change_feed_size = max_change_feed_size
        limit = partial(logs.LimitedErrors, log, projection=view.projection)
        self._unreadable_views = limit("View cannot be read")
        self._unreadable_parked = limit("Parked record cannot be read")
        self._failed_writes = limit("Derived data cannot be written")
        self._load_script = redis.register_script(read_script("types", "load"))
        scripts = ("types", "checkpoints", "counters_and_feeds", "write")
        self._write_script = redis.register_script(read_script(*scripts))
        self._unlist_script = redis.register_script(read_script("unlist_parked"))
        self._date_script = redis.register_script(read_script("types", "date_parked"))
        self._restore_script = redis.register_script(read_script("types", "restore_hash"))

    async def load(self, view_ids: Iterable[str]) -> Mapping[str, Record]:
        """Return these views, by id; an empty record of version 0 for each that does not exist."""
        ids = list(view_ids)
        rows = await self._load_script(args=[pack([self._view.key(view_id) for view_id in ids])])
        return {
            view_id: self._decode_record(view_id, values) for view_id, values in zip(ids, rows, strict=True)
        }

    def _decode_record(self, view_id: str, values: Sequence[bytes | None] | bytes) -> Record:
        """Return a stored view. One that cannot be read, whatever it holds, is its own fault alone."""
        if isinstance(values, bytes):  # the error of a key of another type
            self._unreadable_views.report(recordId=view_id, error=values.decode())
            return Record(view_id, self._view.message(), error=values.decode(), is_hash=False)
        data, version, revision, entries, parked, archived = values
        record = Record(view_id, self._view.message(), _parse_number(version), _parse_number(revision))
        record = replace(record, archived=archived is not None)
        if parked:
            record = replace(record, parked=self._decode_parked(view_id, record.version, parked))
        try:
            if version and not version.isdigit():
                raise ValueError(f"version {version!r}")
            if record.version and data is None and not record.archived:
                raise ValueError("it has no data")
            message = self._view.message.FromString(data or b"")
            return replace(record, message=message, entries=_read_entries(entries) if entries else ())
        except (DecodeError, ValueError) as error:
            self._unreadable_views.report(recordId=view_id, error=repr(error))
            return replace(record, error=f"the stored view cannot be read: {error}")

    def _decode_parked(self, view_id: str, version: int, record: bytes) -> Parked:
        """Return the record of a parked aggregate; from one that cannot be read, as much as is known."""
        try:
            return _read_parked(record)
        except ValueError as error:
            self._unreadable_parked.report(recordId=view_id, error=repr(error))
            text, now = f"the record of the failure cannot be read: {error}", int(time() * 1000)
            if len(self._view.source_streams) > 1:  # only a rebuild finds its stream
                return Parked("", version + 1, text, now, 0, None, "parked")
            stream = f"{self._view.source_streams[0]}.{view_id}"
            return Parked(stream, version + 1, text, now, 0, now, "retrying")

    async def write(
        self,
        updates: Sequence[Update],
        advances: Advances = NO_PARTITIONS,
        as_of: Mapping[int, int] = NO_PARTITIONS,
    ) -> set[str]:
        """Write views and checkpoints; return the ids of the views that another projector has changed."""
        packed_updates = pack([self._pack_update(update) for update in updates])
        added, removed = _list_changed_entries(updates)
        contents = [data for update in updates for data in _list_contents(update)]
        arguments = self._build_advance_arguments(advances, as_of)
        start = time_ns()
        reply = await self._write_script(
            keys=[*self._checkpoint_keys, self._view.parked, self._view.archived, self._view.parked_since],
            args=[
                *arguments,
                packed_updates,
                pack(added),
                pack(removed),
                self._view.change_channel,
                self._max_change_feed_size,
                *contents,
            ],
        )
        traces.note_write(start)
        conflicts, failed_writes = self._check_current(reply)
        for view_id, key, error in failed_writes:
            self._failed_writes.report(recordId=view_id.decode(), key=key.decode(), error=error.decode())
        return {updates[number - 1].after.id for number in conflicts}

    def _pack_update(self, update: Update) -> Sequence[Any]:
        """Return the arguments of one view; `write.lua` unpacks them."""
        before, after, content = update.before, update.after, update.content
        fields = ["version", str(after.version), "revision", str(after.revision)]
        identity = (self._view.key(after.id), after.id, str(before.version), str(before.revision), fields)
        parked = _json(after.parked).decode() if after.parked else ""
        if content is None:
            return (*identity, parked, bool(update.repairs), "", (), ())
        history = (
            self._view.history(after.id) if content.history_entries else "",
            [str(version) for version, _ in content.history_entries],
        )
        if update.repairs == "history":
            return (*identity, parked, True, *history, ())
        if after.entries != before.entries or not before.version or update.repairs:
            fields += ["entries", _json(after.entries).decode()]
        for column in content.columns:
            fields += column
        if content.owner is not None:
            fields += ["owner", content.owner]
        return (
            *identity,
            parked,
            bool(update.repairs),
            *history,
            content.event_contributions,
            _json(content.contributions).decode(),
            content.change_feeds,
        )

    async def load_parked(self) -> Mapping[str, Parked]:
        """Return the parked aggregates, by view id."""
        await self._date_script(keys=[self._view.parked, self._view.parked_since])
        # In pages, since a release with a fault may have parked any number of aggregates.
        records: Any = self._redis.hscan_iter(self._view.parked, count=PARKED_PAGE_SIZE)
        return {
            (id_ := view_id.decode()): self._decode_parked(id_, 0, record)
            async for view_id, record in records
        }

    async def restore_hash(self, view_id: str, version: int) -> None:
        """Replace a view's key of another type by a hash without the view."""
        keys = [self._view.build, self._view.key(view_id), self._view.parked]
        self._check_current(await self._restore_script(keys=keys, args=[self._name, view_id, version]))

    async def unlist_parked(self, view_id: str) -> None:
        """Remove an aggregate from the list of the parked ones, unless its view is parked."""
        keys = [self._view.key(view_id), self._view.parked, self._view.parked_since]
        await self._unlist_script(keys=keys, args=[view_id])


def _list_changed_entries(updates: Sequence[Update]) -> tuple[list[EntryList], list[EntryList]]:
    """Return the index entries to add, and those to remove."""
    added, removed = EntryLists("0"), EntryLists()
    for position, update in enumerate(updates, 1):
        if update.content is None or update.repairs == "history":
            continue
        before, after = update.before.entries, update.after.entries
        # A repair adds entries again that may be missing, even where those of `before` are the same.
        added.add(position, after, () if update.repairs else before)
        removed.add(position, before, after)
    return added.list_all(), removed.list_all()


def _parse_number(value: bytes | None) -> int:
    """Return a stored number; 0 for none, and for anything else, which no write then matches."""
    return int(value) if value and value.isdigit() else 0


def _list_contents(update: Update) -> Iterable[bytes]:
    """Return the bytes of the view, and those of its new history entries."""
    if update.content is None:
        return (b"",)
    return (update.content.data, *(data for _, data in update.content.history_entries))
