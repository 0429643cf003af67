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


class AwaitedVersions:
    """The views of one projection that calls wait for.

    Args:
        views: the projection.
        notifications: of changes of its views.
    """

    def __init__(self, views: ViewReader, notifications: ChangeNotifications) -> None:
        self._views = views
        self._notifications = notifications
        self._awaited: dict[str, _AwaitedView] = {}
        """By view id."""
        self._due: dict[str, None] = {}
        """The ids of the views to check, in order."""
        self._checking: asyncio.Task[None] | None = None
        self._poll: asyncio.TimerHandle | None = None

    async def wait_for(self, view_id: str, version: int, incarnation: str, wait: Wait) -> Woken:
        """Wait until a view has reached a version.

        Args:
            view_id: the view's id.
            version: the version to reach.
            incarnation: the one that the projection follows; another one disturbs the wait.
            wait: of the call.

        Returns:
            REACHED; TIME_UP; DISTURBED, another read has to tell why the view cannot reach the version.
        """
        awaited = self._awaited.get(view_id)
        if awaited is None:
            awaited = self._awaited[view_id] = _AwaitedView(self, view_id)
            self._notifications.add_listener(self._views.view.key(view_id), awaited)
        awaited.waits[wait] = version, incarnation
        self.schedule_check(view_id)
        self._schedule_poll()
        try:
            return await wait.sleep()
        finally:
            del awaited.waits[wait]
            if not awaited.waits:
                del self._awaited[view_id]
                self._notifications.remove_listener(self._views.view.key(view_id), awaited)

    def schedule_check(self, view_id: str) -> None:
        self._due[view_id] = None
        if self._checking is None:
            self._checking = asyncio.create_task(self._check_due())

    def _schedule_poll(self) -> None:
        if self._poll is None:
            self._poll = asyncio.get_running_loop().call_later(POLL_INTERVAL, self._check_all)

    def _check_all(self) -> None:
        self._poll = None
        for view_id in self._awaited:
            self.schedule_check(view_id)
        if self._awaited:
            self._schedule_poll()

    async def _check_due(self) -> None:
        try:
            while self._due:
                view_ids = list(islice(self._due, MAX_CHECK))
                for view_id in view_ids:
                    del self._due[view_id]
                await self._check([view_id for view_id in view_ids if view_id in self._awaited])
        finally:
            self._checking = None

    async def _check(self, view_ids: Sequence[str]) -> None:
        if not view_ids:
            return
        try:
            incarnation, versions = await self._views.read_while_ready(
                *map(self._views.version_command, view_ids)
            )
            parsed = [
                self._views.parse_version(view_id, version)
                for view_id, (version, _) in zip(view_ids, versions, strict=True)
            ]
        except GenerationSwitched:  # the waiting calls go on in the other generation
            incarnation, parsed = "", [0] * len(view_ids)
        except Exception:  # the waiting calls of one view read again, and end with this error themselves
            if len(view_ids) > 1:
                await asyncio.gather(*(self._check([view_id]) for view_id in view_ids))
                return
            incarnation, parsed = "", [0]
        for view_id, version in zip(view_ids, parsed, strict=True):
            if awaited := self._awaited.get(view_id):
                awaited.wake_waits(incarnation, version)


class _AwaitedView:
    """A view that calls wait for, and a listener to its changes."""

    def __init__(self, versions: AwaitedVersions, view_id: str) -> None:
        self._versions = versions
        self._view_id = view_id
        self.waits: dict[Wait, tuple[int, str]] = {}
        """The version and the incarnation that each wait needs."""

    def wake(self) -> None:
        """Schedule a check; called after each change of the view."""
        self._versions.schedule_check(self._view_id)

    def wake_waits(self, incarnation: str, version: int) -> None:
        """Wake the waits for this version or an earlier one, and those for another incarnation."""
        for wait, (needed_version, needed_incarnation) in self.waits.items():
            if incarnation != needed_incarnation:
                wait.wake(Woken.DISTURBED)
            elif version >= needed_version:
                wait.wake(Woken.REACHED)
