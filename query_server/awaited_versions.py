"""Finds out, for all waiting calls of one projection together, which views have reached a version.

How it works. A call waits for one view at a time. A notification that the view has changed schedules a check,
and so does the beginning of each wait, since the view may just have changed. A check reads the versions of
all views that are due with one pipeline, so that calls that wait for the same view cost one read.
Notifications may be lost: all views that a call waits for are checked every POLL_INTERVAL.
"""

import asyncio
from collections.abc import Sequence
from itertools import islice

from query_server.change_notifications import ChangeNotifications
from query_server.view_reader import GenerationSwitched, ViewReader
from runtime.grpc.waits import Wait, Woken

POLL_INTERVAL = 0.5
"""Seconds between two checks of a view without a notification."""
MAX_CHECK = 250
"""Views that are read with one pipeline."""
Key = tuple[str, str]
"""A view's id, and the column with the version that calls wait for."""


class AwaitedVersions:
    """The views of one projection that calls wait for.

    Args:
        views: the projection.
        notifications: of changes of its views.
    """

    def __init__(self, views: ViewReader, notifications: ChangeNotifications) -> None:
        self._views = views
        self._notifications = notifications
        self._awaited: dict[Key, _AwaitedView] = {}
        self._due: dict[Key, None] = {}
        """The views to check, in order."""
        self._checking: asyncio.Task[None] | None = None
        self._poll: asyncio.TimerHandle | None = None

    async def wait_for(self, key: Key, version: int, incarnation: str, wait: Wait) -> Woken:
        """Wait until a view has reached a version.

        Args:
            key: the view, and the column with its version.
            version: the version to reach.
            incarnation: the one that the projection follows; another one disturbs the wait.
            wait: of the call.

        Returns:
            REACHED; TIME_UP; DISTURBED, another read has to tell why the view cannot reach the version.
        """
        awaited = self._awaited.get(key)
        if awaited is None:
            awaited = self._awaited[key] = _AwaitedView(self, key)
            self._notifications.add_listener(self._views.view.key(key[0]), awaited)
        awaited.waits[wait] = version, incarnation
        self.schedule_check(key)
        self._schedule_poll()
        try:
            return await wait.sleep()
        finally:
            del awaited.waits[wait]
            if not awaited.waits:
                del self._awaited[key]
                self._notifications.remove_listener(self._views.view.key(key[0]), awaited)

    def schedule_check(self, key: Key) -> None:
        self._due[key] = None
        if self._checking is None:
            self._checking = asyncio.create_task(self._check_due())

    def _schedule_poll(self) -> None:
        if self._poll is None:
            self._poll = asyncio.get_running_loop().call_later(POLL_INTERVAL, self._check_all)

    def _check_all(self) -> None:
        self._poll = None
        for key in self._awaited:
            self.schedule_check(key)
        if self._awaited:
            self._schedule_poll()

    async def _check_due(self) -> None:
        try:
            while self._due:
                keys = list(islice(self._due, MAX_CHECK))
                for key in keys:
                    del self._due[key]
                await self._check([key for key in keys if key in self._awaited])
        finally:
            self._checking = None

    async def _check(self, keys: Sequence[Key]) -> None:
        if not keys:
            return
        try:
            incarnation, versions = await self._views.read_while_ready(
                *(self._views.version_command(*key) for key in keys)
            )
            parsed = [
                self._views.parse_version(view_id, version)
                for (view_id, _), (version, _) in zip(keys, versions, strict=True)
            ]
        except GenerationSwitched:  # the waiting calls go on in the other generation
            incarnation, parsed = "", [0] * len(keys)
        except Exception:  # the waiting calls of one view read again, and end with this error themselves
            if len(keys) > 1:
                await asyncio.gather(*(self._check([key]) for key in keys))
                return
            incarnation, parsed = "", [0]
        for key, version in zip(keys, parsed, strict=True):
            if awaited := self._awaited.get(key):
                awaited.wake_waits(incarnation, version)


class _AwaitedView:
    """A view that calls wait for, and a listener to its changes."""

    def __init__(self, versions: AwaitedVersions, key: Key) -> None:
        self._versions = versions
        self._key = key
        self.waits: dict[Wait, tuple[int, str]] = {}
        """The version and the incarnation that each wait needs."""

    def wake(self) -> None:
        """Schedule a check; called after each change of the view."""
        self._versions.schedule_check(self._key)

    def wake_waits(self, incarnation: str, version: int) -> None:
        """Wake the waits for this version or an earlier one, and those for another incarnation."""
        for wait, (needed_version, needed_incarnation) in self.waits.items():
            if incarnation != needed_incarnation:
                wait.wake(Woken.DISTURBED)
            elif version >= needed_version:
                wait.wake(Woken.REACHED)
