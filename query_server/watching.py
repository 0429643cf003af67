"""Watching: the latest state, again and again, versions never going back, the last never missed.

A watcher is woken by announcements and reads for itself when its caller is ready for more, so a slow caller
holds nothing up and nothing queues. Everything within one call belongs to one filling of the projection; when
another begins, the call ends with `VIEW_REBUILDING`, and the caller comes back with its resume token.
"""

from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from query_server import freshness, pages
from query_server.changes import Changes, Signal
from query_server.reader import Command
from query_server.views import ViewReader, Window
from runtime.errors import Refusal
from runtime.views import CHANGES_KEPT

PAGE = 100
"""Views that are read at once for one watcher."""
REMEMBERED = 1_000
"""Views of which a watcher knows the version that it sent last, so as not to send it twice."""

LONGEST_NUMBER = 15
"""Digits of a number in a resume token, which a caller may have made up."""

Answer = tuple[bytes, str]
"""A serialised view, and the token to resume from after it."""
Watched = AsyncGenerator[Answer, None]


@dataclass(frozen=True, slots=True)
class Watch:
    """What a watching call needs: the views, their changes, and where its caller wants to begin."""

    views: ViewReader
    changes: Changes
    resume_token: str = ""
    at_least_as_fresh: str = ""
    remaining: float | None = None
    """Seconds until the call's deadline; None where it has none."""

    async def begin(self, key: str, signal: Signal, own: str = "") -> "Filling":
        """Return the filling to follow, once it includes what the caller wants included.

        Raises:
            Refusal: `RESUME_TOKEN_INVALID`, or whatever `freshness.read` raises.
        """
        place = self._place(key)
        await signal.listening()
        if token := self.at_least_as_fresh:
            await freshness.read(self.views, token, own=own, remaining=self._patience())
        _, (name,) = await self.views.complete(("GET", self.views.view.fill))
        of, _, number = place.rpartition(" ")
        known = of == name.decode() and number.isdecimal() and len(number) <= LONGEST_NUMBER
        return Filling(self.views, name, key, int(number) if known else 0)

    def _place(self, key: str) -> str:
        """Return the filling and the number in the caller's resume token; empty where it has none."""
        try:
            return pages.read(key, self.resume_token)
        except Refusal:
            message = "resume_token is not that of an answer of the same watch"
            raise Refusal("RESUME_TOKEN_INVALID", message) from None

    def _patience(self) -> float | None:
        longest = freshness.WITHOUT_DEADLINE
        return None if self.remaining is None else min(self.remaining, longest)


@dataclass(frozen=True, slots=True)
class Filling:
    """One filling of a projection, of which a watcher follows one key."""

    views: ViewReader
    name: bytes
    key: str
    begins_after: int
    """The number in the caller's resume token; 0 where it has none of this filling."""

    async def read(self, *commands: Command) -> list[Any]:
        """Return replies that belong to this filling.

        Raises:
            Refusal: `VIEW_REBUILDING`, another one has begun.
        """
        _, (name, *replies) = await self.views.complete(("GET", self.views.view.fill), *commands)
        if name != self.name:
            raise self.views.rebuilding()
        return replies

    def token(self, number: int) -> str:
        """Return the token to resume from after this number."""
        return pages.mint(self.key, f"{self.name.decode()} {number}")


async def one(watch: Watch, view_id: str, missing: Refusal) -> Watched:
    """Yield one view as it is, and again whenever its version has risen.

    Raises:
        Refusal: `missing` where there is no such view; otherwise see `Watch` and `Filling`.
    """
    key = watch.views.view.key(view_id)
    with watch.changes.of(key) as signal:
        filling = await watch.begin(key, signal, own=view_id)
        seen = filling.begins_after
        while True:
            ((data, version),) = await filling.read(("HMGET", key, "data", "version"))
            if not data:
                raise missing
            if int(version) > seen:
                seen = int(version)
                yield data, filling.token(seen)
            await signal.wait()


async def several(watch: Watch, changes: str, index: str) -> Watched:
    """Yield every view that a set of changes names, in the order of the changes, and what changes later.

    Views that changed so long ago that the set has dropped them come first, where the caller may not know
    them.

    Args:
        watch: how the call was made.
        changes: the key of the set.
        index: the key of the index that has all views, also those that the set has dropped.

    Raises:
        Refusal: see `Watch` and `Filling`.
    """
    with watch.changes.of(changes) as signal:
        filling = await watch.begin(changes, signal)
        after, sent = filling.begins_after, Sent()
        while True:
            found, count, lowest = await _changed(filling, after)
            if count >= CHANGES_KEPT and lowest > after + 1:
                async for view_id, data in _dropped(filling, index):
                    if sent.is_new(view_id, *data):
                        yield data[0], filling.token(after)
                found, *_ = await _changed(filling, lowest - 1)
            views = await _views(filling, [view_id for view_id, _ in found])
            for (view_id, number), view in zip(found, views, strict=True):
                after = number
                if view is not None and sent.is_new(view_id, *view):
                    yield view[0], filling.token(number)
            if not found:
                await signal.wait()


class Sent:
    """The versions that were sent last, of the views that were sent last."""

    def __init__(self) -> None:
        self._versions: OrderedDict[str, int] = OrderedDict()

    def is_new(self, view_id: str, _data: bytes, version: int) -> bool:
        """Return whether this version is to be sent, and remember it."""
        if self._versions.get(view_id, 0) >= version:
            return False
        self._versions[view_id] = version
        self._versions.move_to_end(view_id)
        if len(self._versions) > REMEMBERED:
            self._versions.popitem(last=False)
        return True


async def _changed(filling: Filling, after: int) -> tuple[list[tuple[str, int]], int, int]:
    """Return ids with numbers above one, in their order; the size of the set; and its lowest number."""
    key = filling.key
    flat, count, lowest = await filling.read(
        ("ZRANGE", key, f"({after}", "+inf", "BYSCORE", "LIMIT", 0, PAGE, "WITHSCORES"),
        ("ZCARD", key),
        ("ZRANGE", key, 0, 0, "WITHSCORES"),
    )
    found = [(flat[i].decode(), int(flat[i + 1])) for i in range(0, len(flat), 2)]
    return found, count, int(lowest[1]) if lowest else 0


async def _dropped(filling: Filling, index: str) -> AsyncIterator[tuple[str, tuple[bytes, int]]]:
    """Yield the views of an index that the set of changes has dropped."""
    last = ""
    while members := await filling.views.members(Window(index), last, PAGE):
        last = members[-1]
        ids = [member.partition(":")[2] for member in members]
        (numbers,) = await filling.read(("ZMSCORE", filling.key, *ids))
        gone = [view_id for view_id, number in zip(ids, numbers, strict=True) if number is None]
        for view_id, view in zip(gone, await _views(filling, gone), strict=True):
            if view is not None:
                yield view_id, view


async def _views(filling: Filling, view_ids: Sequence[str]) -> list[tuple[bytes, int] | None]:
    """Return views with their versions."""
    key = filling.views.view.key
    commands = [("HMGET", key(view_id), "data", "version") for view_id in view_ids]
    replies = await filling.read(*commands) if commands else []
    return [(data, int(version)) if data else None for data, version in replies]
