"""Watches: a stream of the latest states of one view, or of all views in a change feed.

How it works. A watcher polls on notification: it reads, sends, and waits for its signal before it reads
again. It reads only when its caller takes more, so a slow caller delays nobody and nothing queues;
intermediate states may be skipped, but versions never go back and the latest state always arrives. A change
feed numbers changes and holds each view at its latest number (contracts/view_layout.py). A watcher of a
feed remembers the last number that it has sent, also in the resume token. If the feed has evicted numbers
above that one, the watcher first reads the evicted views from the index. All reads of a watcher belong to one
build of the projection; when another build begins, the call ends with `VIEW_REBUILDING` and the caller
resumes with its token.

A switch to another generation does not end a call: another watcher goes on in that generation
(query_server/service.py). It reads everything from its start and sends what `WatchProgress` does not know
as sent. The numbers of change feeds are of their generation, but the versions of views are those of their
streams: a state of a lower version than the one that was sent waits until the generation has caught up.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from contracts.view_layout import MAX_CHANGE_FEED_SIZE, View, id_of_member
from query_server.change_notifications import ChangeNotifications, Signal
from query_server.freshness import Freshness
from query_server.not_found import Archived, NotFound
from query_server.view_reader import ViewReader, Window
from runtime.grpc.request_tokens import RequestTokens
from runtime.grpc.rpc_error import RpcError
from runtime.redis.pipeline import Command

BATCH_SIZE = 50
"""Views per read of one watcher, which holds them until its caller has taken them."""
RETRY_INTERVAL = 0.5
"""Seconds between a read that failed because Redis is unreachable and the next attempt."""
RETRIED = ("READ_MODEL_UNAVAILABLE", "VIEW_BEHIND", "TOO_MANY_WAITS")
"""The errors with which no call ends that goes on in another generation; it tries again."""
EVICTION_MARGIN = MAX_CHANGE_FEED_SIZE // 10
"""Changes that a full feed may evict while a watcher reads the index, without a gap for the watcher."""
MAX_SENT_VERSIONS = 1_000
"""Views whose last sent version a watcher remembers."""
MAX_NUMBER_LENGTH = 15
"""Digits of a number in a resume token."""

WatchResponse = tuple[bytes, str]
"""A serialised view, and the token that resumes the watch after it."""
WatchResponses = AsyncGenerator[WatchResponse, None]
VersionedView = tuple[bytes, int]
"""A serialised view, and its version."""


class SentVersions:
    """The last sent version and content of each of the last MAX_SENT_VERSIONS views."""

    def __init__(self) -> None:
        self._sent: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def get(self, view_id: str) -> tuple[int, int]:
        """Return the last sent version of a view and the hash of its content; zeros for none."""
        return self._sent.get(view_id, (0, 0))

    def set(self, view_id: str, version: int, content: int) -> None:
        """Record a version, and the hash of its content; 0 if that is unknown."""
        self._sent[view_id] = (version, content)
        self._sent.move_to_end(view_id)
        if len(self._sent) > MAX_SENT_VERSIONS:
            self._sent.popitem(last=False)

    def add(self, view_id: str, view: VersionedView) -> bool:
        """Record a version unless it is lower; return whether the view has to be sent.

        A higher version with unchanged content is not sent: some events change a view's version alone.
        """
        data, version = view
        sent_version, sent_content = self.get(view_id)
        if version < sent_version:
            return False
        content = hash(data)
        self.set(view_id, version, content)
        return content != sent_content


@dataclass(slots=True)
class WatchProgress:
    """The progress of one call through the generations that serve meanwhile."""

    sent: SentVersions = field(default_factory=SentVersions)
    has_begun: bool = False
    """Whether a build was found; later ones are read from their start."""
    has_sent: bool = False
    """Whether a response was sent."""


@dataclass(frozen=True, slots=True)
class Watch:
    """The parameters of one watch call."""

    views: ViewReader
    notifications: ChangeNotifications
    freshness: Freshness
    resume_token: str = ""
    at_least_as_fresh: str = ""
    deadline: float | None = None
    """The call's deadline, from `compute_deadline`; None if it has none."""
    progress: WatchProgress = field(default_factory=WatchProgress)

    @property
    def view(self) -> View:
        """The layout of the views in the generation that the call reads."""
        return self.views.view

    async def begin(self, key: str, signal: Signal) -> "WatchedBuild":
        """Return the current build, once it includes the writes of `at_least_as_fresh`.

        Args:
            key: of the view or change feed to watch.
            signal: of the same key.

        Raises:
            RpcError: `RESUME_TOKEN_INVALID`, or an error of `Freshness.read`.
        """
        position = ""
        if not self.progress.has_begun:
            position = self.freshness.tokens.read_resume_token(self.view.move_back(key), self.resume_token)
        while True:
            try:
                build = await self._find_build(key, position, signal)
            except RpcError as error:
                if not self.progress.has_begun or error.reason not in RETRIED:
                    raise
                self.notifications.check_running()
                await asyncio.sleep(RETRY_INTERVAL)
            else:
                self.progress.has_begun = True
                return build

    async def _find_build(self, key: str, position: str, signal: Signal) -> "WatchedBuild":
        await signal.wait_until_subscribed()
        if token := self.at_least_as_fresh:
            await self.freshness.read(token, deadline=self.deadline)
        _, (name,) = await self.views.read_while_ready(("GET", self.view.build))
        if name is None:
            raise self.views.rebuilding_error()
        build, _, number = position.rpartition(" ")
        resumes = build == name.decode() and number.isdecimal() and len(number) <= MAX_NUMBER_LENGTH
        return WatchedBuild(
            self.views, self.notifications, self.freshness.tokens, name, key, int(number) if resumes else 0
        )


@dataclass(frozen=True, slots=True)
class WatchedBuild:
    """One build of a projection, of which a watcher follows one key."""

    views: ViewReader
    notifications: ChangeNotifications
    tokens: RequestTokens
    name: bytes
    key: str
    begins_after: int
    """The number in the caller's resume token; 0 if the token has none of this build."""

    async def read(self, *commands: Command) -> list[Any]:
        """Return replies that belong to this build, retrying while Redis is unreachable.

        Raises:
            RpcError: `VIEW_REBUILDING`, another build has begun; `STOPPING`, the process stops.
        """
        while True:
            try:
                _, (name, *replies) = await self.views.read_while_ready(
                    ("GET", self.views.view.build), *commands
                )
            except RpcError as error:
                if error.reason != "READ_MODEL_UNAVAILABLE":
                    raise
                self.notifications.check_running()
                await asyncio.sleep(RETRY_INTERVAL)
            else:
                if name != self.name:
                    raise self.views.rebuilding_error()
                return replies

    def mint_token(self, number: int) -> str:
        """Return the token that resumes the watch after this number."""
        key = self.views.view.move_back(self.key)
        return self.tokens.mint_resume_token(key, f"{self.name.decode()} {number}")


async def watch_view(watch: Watch, view_id: str, missing: NotFound) -> WatchResponses:
    """Yield the current state of one view, and its state after every later change.

    A watcher that has the last state of an archived view waits until a later event restores the view.

    Raises:
        RpcError: `missing`, the view does not exist; `VIEW_ARCHIVED`, it has a state that the watcher lacks;
            the errors of `Watch` and `WatchedBuild`.
    """
    key = watch.view.key(view_id)
    with watch.notifications.open_signal(key) as signal:
        sent_version, sent_content = watch.progress.sent.get(view_id)
        is_switched = sent_version > 0  # the states up to that version were of another generation
        build = await watch.begin(key, signal)
        if build.begins_after:
            sent_version = build.begins_after
            watch.progress.sent.set(view_id, sent_version, 0)
        while True:
            watch.views.age.restart()
            data, stored_version, archived, parked, *owner = await _read_hash(watch, build, view_id, missing)
            found = watch.views.check_found(view_id, data, stored_version, archived, parked, *owner)
            version = 0 if found is None else watch.views.parse_version(view_id, stored_version)
            if found is None:
                # Another generation may lack the view as yet. A view of somebody else is there, and hidden.
                if not is_switched or (stored_version and watch.views.hides(owner, data)):
                    raise missing.error(view_id)
            elif isinstance(found, Archived):
                if version > sent_version:
                    raise missing.archived_error(found, view_id)
            elif version > sent_version or (
                is_switched and version == sent_version and hash(found) != sent_content
            ):
                sent_version, sent_content = version, hash(found)
                watch.progress.sent.set(view_id, sent_version, sent_content)
                yield found, build.mint_token(sent_version)
            await signal.wait()


async def _read_hash(
    watch: Watch, build: WatchedBuild, view_id: str, missing: NotFound
) -> Sequence[bytes | None]:
    """Return the reply to `ViewReader.find_command`."""
    try:
        (fields,) = await build.read(watch.views.find_command(view_id))
    except RpcError as error:
        if watch.views.hides_failure(error):
            raise missing.error(view_id) from error
        raise
    return fields  # type: ignore[no-any-return]


async def watch_feed(watch: Watch, feed_key: str, index: str) -> WatchResponses:
    """Yield the views of a change feed in the order of their latest changes, and then every later change.

    Views whose changes the feed has evicted come first, unless the caller resumes after those changes.

    Args:
        watch: the parameters of the call.
        feed_key: the key of the change feed in Redis.
        index: the key of the index of the same views, including those that the feed has evicted.

    Raises:
        RpcError: the errors of `Watch` and `WatchedBuild`.
    """
    with watch.notifications.open_signal(feed_key) as signal:
        build = await watch.begin(feed_key, signal)
        after, sent_versions = build.begins_after, watch.progress.sent
        while True:
            watch.views.age.restart()
            watch.views.age.include_all()
            changes, feed_range = await _read_changes(build, after)
            if after > feed_range.highest:  # a failover of Redis has lost numbers that were already sent
                after = 0
                continue
            if feed_range.is_full and feed_range.lowest > after + 1:
                # The feed keeps evicting while the index is read. Reading views up to a number above the
                # lowest one leaves room for that: evictions up to `after` cause no gap.
                up_to = feed_range.lowest + EVICTION_MARGIN
                async for view_id, view in _read_evicted_views(build, index, up_to):
                    if sent_versions.add(view_id, view):
                        yield view[0], build.mint_token(after)
                after = up_to
                continue
            views = await _read_views(build, [view_id for view_id, _ in changes])
            for (view_id, number), current_view in zip(changes, views, strict=True):
                after = number
                if current_view is not None and sent_versions.add(view_id, current_view):
                    yield current_view[0], build.mint_token(number)
            if not changes:
                await signal.wait()


@dataclass(frozen=True, slots=True)
class ChangeRange:
    """The lowest and the highest number in a change feed; both are 0 if it is empty."""

    lowest: int
    highest: int
    is_full: bool
    """Whether the feed may have evicted changes."""


async def _read_changes(build: WatchedBuild, after: int) -> tuple[list[tuple[str, int]], ChangeRange]:
    """Return the first view ids with numbers above `after`, in their order, and the range of the feed."""
    key = build.key
    flat, count, lowest, highest = await build.read(
        ("ZRANGE", key, f"({after}", "+inf", "BYSCORE", "LIMIT", 0, BATCH_SIZE, "WITHSCORES"),
        ("ZCARD", key),
        ("ZRANGE", key, 0, 0, "WITHSCORES"),
        ("ZRANGE", key, -1, -1, "WITHSCORES"),
    )
    changes = [(flat[i].decode(), int(flat[i + 1])) for i in range(0, len(flat), 2)]
    low, high = (int(end[1]) if end else 0 for end in (lowest, highest))
    return changes, ChangeRange(low, high, is_full=count >= MAX_CHANGE_FEED_SIZE)


async def _read_evicted_views(
    build: WatchedBuild, index: str, up_to: int
) -> AsyncIterator[tuple[str, VersionedView]]:
    """Yield the views of an index that the feed has evicted or holds at a number of at most `up_to`."""
    last_member = ""
    while members := await build.views.get_members(Window(index), last_member, BATCH_SIZE):
        last_member = members[-1]
        ids = [id_of_member(member) for member in members]
        (numbers,) = await build.read(("ZMSCORE", build.key, *ids))
        evicted_ids = [
            view_id
            for view_id, number in zip(ids, numbers, strict=True)
            if number is None or int(number) <= up_to
        ]
        for view_id, view in zip(evicted_ids, await _read_views(build, evicted_ids), strict=True):
            if view is not None:
                yield view_id, view


async def _read_views(build: WatchedBuild, view_ids: Sequence[str]) -> list[VersionedView | None]:
    """Return views with their versions, each None if it does not exist or cannot be read."""
    if not view_ids:
        return []
    key, views = build.views.view.key, build.views
    try:
        fields = ("data", "version", *views.owner_fields)
        replies = await build.read(*(("HMGET", key(view_id), *fields) for view_id in view_ids))
        return [
            (views.check(view_id, data), views.parse_version(view_id, version))
            if data and not views.hides(owner, data)
            else None
            for view_id, (data, version, *owner) in zip(view_ids, replies, strict=True)
        ]
    except RpcError as error:
        if error.reason != "VIEW_UNREADABLE":
            raise
    if len(view_ids) == 1:
        return [None]
    return [view for view_id in view_ids for view in await _read_views(build, [view_id])]
