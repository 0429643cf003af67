"""Watching: the latest state, again and again, versions never going back, the last never missed.

A watcher is woken by announcements and reads for itself when its caller is ready for more, so a slow caller
holds nothing up and nothing queues. Everything within one call belongs to one filling of the projection; when
another begins, the call ends with `VIEW_REBUILDING`, and the caller comes back with its resume token.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from contracts import page_tokens
from contracts.view_layout import CHANGES_KEPT, id_of_member
from query_server import freshness
from query_server.change_feed import ChangeFeed, Signal
from query_server.reader import Command
from query_server.view_reader import ViewReader, Window
from runtime.grpc.rpc_error import RpcError

PAGE = 100
"""Views that are read at once for one watcher."""
PAUSE = 0.5
"""Seconds before a watcher whose read was cut off reads again."""
SLACK = CHANGES_KEPT // 10
"""Changes at the end of a full set that may be dropped while a watcher reads, without its missing any."""
REMEMBERED = 1_000
"""Views of which a watcher knows the version that it sent last, so as not to send it twice."""
LONGEST_NUMBER = 15
"""Digits of a number in a resume token, which a caller may have made up."""

WatchResponse = tuple[bytes, str]
"""A serialised view, and the token to resume from after it."""
WatchResponses = AsyncGenerator[WatchResponse, None]
Versioned = tuple[bytes, int]
"""A serialised view, and its version."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What a watching call needs: the views, their changes, and where its caller wants to begin."""

    views: ViewReader
    change_feed: ChangeFeed
    resume_token: str = ""
    at_least_as_fresh: str = ""
    remaining: float | None = None
    """Seconds until the call's deadline; None where it has none."""

    async def begin(self, key: str, signal: Signal) -> "WatchedBuild":
        """Return the filling to follow, once it includes what the caller wants included.

        Raises:
            Refusal: `RESUME_TOKEN_INVALID`, or whatever `freshness.read` raises.
        """
        place = self._place(key)
        await signal.wait_until_subscribed()
        if token := self.at_least_as_fresh:
            await freshness.read(self.views, token, remaining=self._patience())
        _, (name,) = await self.views.complete(("GET", self.views.view.build))
        if name is None:
            raise self.views.rebuilding()
        of, _, number = place.rpartition(" ")
        known = of == name.decode() and number.isdecimal() and len(number) <= LONGEST_NUMBER
        return WatchedBuild(self.views, self.change_feed, name, key, int(number) if known else 0)

    def _place(self, key: str) -> str:
        """Return the filling and the number in the caller's resume token; empty where it has none."""
        try:
            return page_tokens.read(key, self.resume_token)
        except ValueError:
            message = "resume_token is not that of an answer of the same watch"
            raise RpcError("RESUME_TOKEN_INVALID", message) from None

    def _patience(self) -> float | None:
        longest = freshness.WITHOUT_DEADLINE
        return None if self.remaining is None else min(self.remaining, longest)


@dataclass(frozen=True, slots=True)
class WatchedBuild:
    """One filling of a projection, of which a watcher follows one key."""

    views: ViewReader
    change_feed: ChangeFeed
    name: bytes
    key: str
    begins_after: int
    """The number in the caller's resume token; 0 where it has none of this filling."""

    async def read(self, *commands: Command) -> list[Any]:
        """Return replies that belong to this filling, once Redis can be reached.

        Raises:
            Refusal: `VIEW_REBUILDING`, another one has begun; `STOPPING`, the process stops.
        """
        while True:
            try:
                _, (name, *replies) = await self.views.complete(("GET", self.views.view.build), *commands)
            except RpcError as error:
                if error.reason != "READ_MODEL_UNAVAILABLE":
                    raise
                self.change_feed.check_running()
                await asyncio.sleep(PAUSE)
            else:
                if name != self.name:
                    raise self.views.rebuilding()
                return replies

    def token(self, number: int) -> str:
        """Return the token to resume from after this number."""
        return page_tokens.mint(self.key, f"{self.name.decode()} {number}")


async def one(watch: Watch, view_id: str, missing: RpcError) -> WatchResponses:
    """Yield one view as it is, and again whenever its version has risen.

    Raises:
        Refusal: `missing` where there is no such view; otherwise see `Watch` and `WatchedBuild`.
    """
    key = watch.views.view.key(view_id)
    with watch.change_feed.of(key) as signal:
        build = await watch.begin(key, signal)
        seen = build.begins_after
        while True:
            ((data, version),) = await build.read(("HMGET", key, "data", "version"))
            if not data:
                raise missing
            if int(version) > seen:
                seen = int(version)
                yield data, build.token(seen)
            await signal.wait()


async def several(watch: Watch, change_feed: str, index: str) -> WatchResponses:
    """Yield every view that a set of changes names, in the order of the changes, and what changes later.

    Views that changed so long ago that the set has dropped them come first, where the caller may not know
    them.

    Args:
        watch: how the call was made.
        changes: the key of the set.
        index: the key of the index that has all views, also those that the set has dropped.

    Raises:
        Refusal: see `Watch` and `WatchedBuild`.
    """
    with watch.change_feed.of(change_feed) as signal:
        build = await watch.begin(change_feed, signal)
        after, sent = build.begins_after, SentVersions()
        while True:
            found, range_ = await _changed(build, after)
            if after > range_.highest:  # Redis has lost changes that were told
                after = 0
                continue
            if range_.is_full and range_.lowest > after + 1:
                async for view_id, view in _dropped(build, index, range_.lowest + SLACK):
                    if sent.is_new(view_id, view):
                        yield view[0], build.token(after)
                after = range_.lowest + SLACK
                continue
            views = await _views(build, [view_id for view_id, _ in found])
            for (view_id, number), found_view in zip(found, views, strict=True):
                after = number
                if found_view is not None and sent.is_new(view_id, found_view):
                    yield found_view[0], build.token(number)
            if not found:
                await signal.wait()


class SentVersions:
    """What was sent last of each view, of the views that were sent last."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def is_new(self, view_id: str, view: "Versioned") -> bool:
        """Return whether this version is to be sent, and remember it.

        One that looks like the version sent before it is not: a view without a version of its own may be as
        it was after events that mean nothing to it.
        """
        data, version = view
        before, looks = self._known.get(view_id, (0, 0))
        if before >= version:
            return False
        self._known[view_id] = (version, hash(data))
        self._known.move_to_end(view_id)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return looks != hash(data)


@dataclass(frozen=True, slots=True)
class ChangeRange:
    """The lowest and the highest number in a set of changes, 0 where it is empty."""

    lowest: int
    highest: int
    is_full: bool
    """Whether it may have dropped changes."""


async def _changed(build: WatchedBuild, after: int) -> tuple[list[tuple[str, int]], ChangeRange]:
    """Return ids with numbers above one, in their order; and what the set holds."""
    key = build.key
    flat, count, lowest, highest = await build.read(
        ("ZRANGE", key, f"({after}", "+inf", "BYSCORE", "LIMIT", 0, PAGE, "WITHSCORES"),
        ("ZCARD", key),
        ("ZRANGE", key, 0, 0, "WITHSCORES"),
        ("ZRANGE", key, -1, -1, "WITHSCORES"),
    )
    found = [(flat[i].decode(), int(flat[i + 1])) for i in range(0, len(flat), 2)]
    low, high = (int(end[1]) if end else 0 for end in (lowest, highest))
    return found, ChangeRange(low, high, is_full=count >= CHANGES_KEPT)


async def _dropped(build: WatchedBuild, index: str, up_to: int) -> AsyncIterator[tuple[str, Versioned]]:
    """Yield the views of an index of which the set of changes has no number above this one."""
    last = ""
    while members := await build.views.members(Window(index), last, PAGE):
        last = members[-1]
        ids = [id_of_member(member) for member in members]
        (numbers,) = await build.read(("ZMSCORE", build.key, *ids))
        gone = [
            view_id
            for view_id, number in zip(ids, numbers, strict=True)
            if number is None or int(number) <= up_to
        ]
        for view_id, view in zip(gone, await _views(build, gone), strict=True):
            if view is not None:
                yield view_id, view


async def _views(build: WatchedBuild, view_ids: Sequence[str]) -> list[Versioned | None]:
    """Return views with their versions, None for each that is not there."""
    key = build.views.view.key
    commands = [("HMGET", key(view_id), "data", "version") for view_id in view_ids]
    replies = await build.read(*commands) if commands else []
    return [(data, int(version)) if data else None for data, version in replies]
