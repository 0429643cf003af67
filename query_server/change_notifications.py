"""Wakes the watchers and waiting calls of a process when views change: one Redis subscription for all.

How it works. After each write the projector publishes one notification per projection, which lists the
changed views and change feeds by key (contracts/view_layout.py). `ChangeNotifications` keeps one
subscription to these channels and one set of listeners per key; a notification wakes the listeners of its
keys. Notifications carry no state: a woken watcher reads the view itself, so several notifications cost one
read, and a missed one is repaired by any later read. The subscription covers the channels of all
generations. An empty notification tells of a switch to another generation, and wakes every listener of the
projection. Two changes arrive without a notification, and both wake every watcher: a new subscription,
since notifications were lost while there was none, and a new build of a projection, which `_watch_builds`
polls, as it does the serving generations, whose notification may be lost. An idle watcher costs its memory
alone. Followers learn which views of a projection have changed, and that changes may have been missed.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import msgspec

from contracts.generations import decode_serving
from contracts.view_layout import View
from query_server.redis_client import RedisClient
from query_server.subscription import Subscription
from runtime.backoff import Backoff
from runtime.grpc.rpc_error import RpcError
from runtime.process import logs
from runtime.process.lifecycle import cancel_and_wait
from runtime.redis.address import RedisAddress

INITIAL_PAUSE, MAX_PAUSE = 0.01, 1.0
"""Seconds between attempts to subscribe."""
BUILD_CHECK_INTERVAL = 1.0
"""Seconds between two checks for a new build of a projection, or a switch to another generation."""

log = logs.get_logger(__name__)

_decode_notification = msgspec.msgpack.Decoder(tuple[list[str], list[str]]).decode


class Listener(Protocol):
    """Is woken when a view or a change feed has changed; several changes may wake it once."""

    def wake(self) -> None: ...


class Follower(Protocol):
    """Follows all views of a projection."""

    def add_changed(self, generation: str, view_ids: Sequence[str]) -> None:
        """Take note that views of a generation have changed."""

    def add_missed(self) -> None:
        """Take note that any view may have changed, or another generation or build may serve."""


class Signal:
    """Wakes one watcher; created by `ChangeNotifications.open_signal`."""

    def __init__(self, notifications: "ChangeNotifications") -> None:
        self._notifications = notifications
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def wait_until_subscribed(self) -> None:
        """Return once the subscription is active.

        A read after this misses no change silently: a change that it does not include wakes the signal.

        Raises:
            RpcError: `READ_MODEL_UNAVAILABLE`, Redis is unreachable; `STOPPING`, the process stops.
        """
        await self._notifications.wait_until_subscribed()

    async def wait(self) -> None:
        """Return once the key may have changed since the last call.

        Raises:
            RpcError: `STOPPING`, the process stops.
        """
        self._notifications.check_running()
        await self._woken.wait()
        self._woken.clear()
        self._notifications.check_running()


class ChangeNotifications:
    """Receives the change notifications of several projections.

    Args:
        address: of Redis.
        redis: the connection for reads from the same Redis.
        views: the views that can be watched or waited for.
    """

    def __init__(self, address: RedisAddress, redis: RedisClient, views: Collection[View]) -> None:
        self._address = address
        self._redis = redis
        self._views = {view.projection: view for view in views}
        self._views_by_channel: dict[str, View] = {}
        """The views of the generations that have sent notifications."""
        self._listeners: defaultdict[str, set[Listener]] = defaultdict(set)
        self._followers: defaultdict[str, list[Follower]] = defaultdict(list)
        """By projection."""
        self._subscribed = asyncio.Event()
        self._stopped = False

    @contextmanager
    def open_signal(self, key: str) -> Iterator[Signal]:
        """Yield a signal that wakes after every change of a key while the context is open.

        Args:
            key: of a view's hash, or of a change feed in Redis.
        """
        signal = Signal(self)
        self.add_listener(key, signal)
        try:
            yield signal
        finally:
            self.remove_listener(key, signal)

    def add_listener(self, key: str, listener: Listener) -> None:
        """Wake a listener after every change of a key, as for `open_signal`, until it is removed."""
        self._listeners[key].add(listener)

    def remove_listener(self, key: str, listener: Listener) -> None:
        self._listeners[key].discard(listener)
        if not self._listeners[key]:
            del self._listeners[key]

    def add_follower(self, projection: str, follower: Follower) -> None:
        """Tell a follower of all changes of a projection's views; first, once changes are received."""
        self._followers[projection].append(follower)

    @property
    def listeners(self) -> int:
        """The number of listeners and open signals."""
        return sum(map(len, self._listeners.values()))

    async def wait_until_subscribed(self) -> None:
        """Wait for the subscription, as `Signal.wait_until_subscribed` documents."""
        self.check_running()
        try:
            async with asyncio.timeout(MAX_PAUSE):  # wait_for of Python 3.11 may swallow the end of a call
                await self._subscribed.wait()
        except TimeoutError:
            raise RpcError("READ_MODEL_UNAVAILABLE", "Redis is unreachable", retry_after=1.0) from None

    def check_running(self) -> None:
        """Raise `STOPPING` once the process stops."""
        if self._stopped:
            raise RpcError("STOPPING", "the server stops", retry_after=1.0)

    async def run(self, stopping: asyncio.Event) -> None:
        """Receive notifications until the process stops, then wake every watcher so that its call ends."""
        if not self._views:
            return
        tasks = [
            asyncio.ensure_future(each) for each in (stopping.wait(), self._receive(), self._watch_builds())
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await cancel_and_wait(*tasks)
            self._stopped = True
            self._wake_all()

    async def _receive(self) -> None:
        backoff = Backoff(INITIAL_PAUSE, MAX_PAUSE)
        patterns = [view.change_channels for view in self._views.values()]
        failures = logs.RepeatedErrors(log, "Change notifications interrupted")
        while True:
            try:
                async with Subscription(self._address, patterns) as subscription:
                    backoff.reset()
                    # Woken watchers read at once, so the connection for reads has to work first.
                    while not await self._redis.serves_reads():  # noqa: ASYNC110 - it connects for itself
                        await asyncio.sleep(INITIAL_PAUSE)
                    self._subscribed.set()
                    failures.reset()
                    self._wake_all()  # notifications from before the subscription are lost
                    async for channel, message in subscription:
                        self._dispatch(channel, message)
            except (OSError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
                failures.report(error)
            self._subscribed.clear()
            await asyncio.sleep(backoff.next_pause())

    def _dispatch(self, channel: str, message: bytes) -> None:
        if not self._listeners and not self._followers:
            return
        view_ids, feed_keys = _decode_notification(message)
        view = self._find_view(channel)
        followers = self._followers.get(view.projection, ())
        if not view_ids and not feed_keys:
            self._wake_projection(view.projection)
            for follower in followers:
                follower.add_missed()
        for follower in followers:
            follower.add_changed(view.generation, view_ids)
        for view_id in view_ids:
            self._wake(view.key(view_id))
        for key in feed_keys:
            self._wake(key)

    def _find_view(self, channel: str) -> View:
        view = self._views_by_channel.get(channel)
        if view is None:
            _, projection, generation = channel.split(":", 2)
            view = self._views_by_channel[channel] = self._views[projection].at(generation)
        return view

    async def _watch_builds(self) -> None:
        views = list(self._views.values())
        previous: list[bytes | None] | None = None
        while True:
            try:
                values = await self._redis.call(
                    "MGET", *(view.serving for view in views), *(view.build for view in views)
                )
                if values != previous:  # also at first: a watcher may have begun before, with another build
                    self._wake_all()  # a new build clears views without a notification
                previous = values
                views = [view.at(decode_serving(name)) for view, name in zip(views, values, strict=False)]
            except RpcError:
                pass  # Redis is unreachable; the subscription breaks as well and reconnects
            await asyncio.sleep(BUILD_CHECK_INTERVAL)

    def _wake(self, key: str) -> None:
        for listener in tuple(self._listeners.get(key, ())):
            listener.wake()

    def _wake_projection(self, projection: str) -> None:
        for key in list(self._listeners):
            if key.split(":", 2)[1] == projection:
                self._wake(key)

    def _wake_all(self) -> None:
        for key in list(self._listeners):
            self._wake(key)
        for followers in self._followers.values():
            for follower in followers:
                follower.add_missed()
