"""Who is to be told that a view has changed: one subscription of a process for all its watchers.

The projector announces on a channel which views have changed (contracts/view_layout.py). An announcement only says
that it is time to look, so several are worth one look, and a connection that was lost is made good by having
everybody look. While nothing changes, a watcher costs its memory alone.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import msgspec

from contracts.view_layout import View
from query_server.reader import Reader
from query_server.redis_address import RedisAddress
from query_server.subscription import Subscription
from runtime.backoff import Backoff
from runtime.grpc.rpc_error import RpcError
from runtime.process import logs

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 1.0
"""Seconds between attempts to subscribe."""
LOOK = 1.0
"""Seconds between two looks at whether a projection is filled anew, which nobody announces."""

log = logs.get_logger(__name__)

_decode_notification = msgspec.msgpack.Decoder(tuple[list[str], list[str]]).decode


class Signal:
    """Wakes one watcher; made by `ChangeFeed.of`."""

    def __init__(self, change_feed: "ChangeFeed") -> None:
        self._changes = change_feed
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There may be something new."""
        self._woken.set()

    async def wait_until_subscribed(self) -> None:
        """Return while announcements come in: what is read from now on is followed by all that is new.

        Raises:
            Refusal: `READ_MODEL_UNAVAILABLE`, Redis is away; `STOPPING`, the process stops.
        """
        await self._changes.wait_until_subscribed()

    async def wait(self) -> None:
        """Return once there may be something new since the last wait.

        Raises:
            Refusal: `STOPPING`, the process stops.
        """
        self._changes.check_running()
        await self._woken.wait()
        self._woken.clear()
        self._changes.check_running()


class ChangeFeed:
    """The announcements of several projections.

    Args:
        address: where Redis is.
        reader: reads from the same Redis.
        views: whose changes can be watched.
    """

    def __init__(self, address: RedisAddress, reader: Reader, views: Collection[View]) -> None:
        self._address = address
        self._reader = reader
        self._views = {view.change_channel: view for view in views}
        self._signals: defaultdict[str, set[Signal]] = defaultdict(set)
        self._subscribed = asyncio.Event()
        self._stopped = False

    @contextmanager
    def of(self, key: str) -> Iterator[Signal]:
        """Return a signal that is woken by changes of a view's key or of a set's, within the context."""
        signal = Signal(self)
        self._signals[key].add(signal)
        try:
            yield signal
        finally:
            self._signals[key].discard(signal)
            if not self._signals[key]:
                del self._signals[key]

    @property
    def watchers(self) -> int:
        """How many signals there are now."""
        return sum(map(len, self._signals.values()))

    async def wait_until_subscribed(self) -> None:
        """Wait until announcements come in; see `Signal.wait_until_subscribed`."""
        self.check_running()
        try:
            await asyncio.wait_for(self._subscribed.wait(), LONGEST_PAUSE)
        except TimeoutError:
            raise RpcError("READ_MODEL_UNAVAILABLE", "Redis is away", retry_after=1.0) from None

    def check_running(self) -> None:
        """Refuse to go on once the process stops."""
        if self._stopped:
            raise RpcError("STOPPING", "the server stops", retry_after=1.0)

    async def run(self, stopping: asyncio.Event) -> None:
        """Hear announcements until the process stops, then have every watcher end its call."""
        if not self._views:
            return
        hearing = [asyncio.create_task(self._receive()), asyncio.create_task(self._watch_builds())]
        try:
            stopped = asyncio.create_task(stopping.wait())
            done, _ = await asyncio.wait([stopped, *hearing], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in hearing:
                task.cancel()
            self._stopped = True
            self._wake_all()

    async def _receive(self) -> None:
        """Keep a subscription."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                async with Subscription(self._address, list(self._views)) as subscription:
                    backoff.reset()
                    while not await self._reader.ping():  # noqa: ASYNC110 - it connects for itself
                        await asyncio.sleep(FIRST_PAUSE)
                    self._subscribed.set()
                    self._wake_all()  # what was announced meanwhile is lost
                    async for channel, message in subscription:
                        self._dispatch(self._views[channel], message)
            except (OSError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
                log.warning("Announcements are not heard", error=repr(error))
            self._subscribed.clear()
            await asyncio.sleep(backoff.next_pause())

    def _dispatch(self, view: View, message: bytes) -> None:
        view_ids, sets = _decode_notification(message)
        for view_id in view_ids:
            self._wake(view.key(view_id))
        for key in sets:
            self._wake(key)

    async def _watch_builds(self) -> None:
        """Have everybody look when a projection is filled anew: views may be gone, which nobody announces."""
        keys = [view.build for view in self._views.values()]
        known: list[bytes | None] = []
        while True:
            try:
                found = await self._reader.call("MGET", *keys)
                if known and found != known:
                    self._wake_all()
                known = found
            except RpcError:
                pass  # Redis is away; the subscription notices that as well
            await asyncio.sleep(LOOK)

    def _wake(self, key: str) -> None:
        for signal in self._signals.get(key, ()):
            signal.wake()

    def _wake_all(self) -> None:
        for key in list(self._signals):
            self._wake(key)
