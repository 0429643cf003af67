"""Keeps an index in step with the views in Redis.

How it works. Change notifications name the views that have changed. Their ids gather for BATCH_INTERVAL; then
one pipeline reads these views, and one commit of the index replaces their documents. A notification is only
ever missed together with its subscription, or with a build of the projection. `ChangeNotifications` reports
both (`add_missed`), also at first, and a sweep follows: it reads the versions of all views, slice by slice,
and then the views whose versions differ from those in the index. A new build starts from nothing: all
views are read again, in place, and searches go on meanwhile, unless the database was restored.

The flag of a document depends on views of another projection, which are followed alike. They change a
document only if its flag changes. Documents that change by time alone are read again at that time.

A call with a consistency token waits until the index has the views of the token. The library's work (words,
commits, merges) is done in threads; it releases Python's lock for most of it.
"""

import asyncio
import heapq
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import time
from typing import NoReturn, Self, TypeVar

from contracts import streams
from contracts.view_layout import View, id_of_member
from query_server.change_notifications import ChangeNotifications
from query_server.fresh_reader import FreshReader
from query_server.freshness import RETRY_AFTER
from query_server.read_models import ServingReadModel
from query_server.search.definition import IndexDefinition
from query_server.search.flags import Flags
from query_server.search.folder import SavedState
from query_server.search.followed_view import SLICE_SIZE, FollowedView, get_incarnation
from query_server.search.index import Change, SearchIndex
from query_server.view_reader import GenerationSwitched, Window
from runtime.grpc.health import NotReady
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.waits import Wait, Waits, Woken
from runtime.process import logs
from runtime.process.lifecycle import cancel_and_wait

BATCH_INTERVAL = 0.02
"""Seconds for which changes gather before they are read."""
MAX_UNCOMMITTED = 5_000
"""Documents of a sweep after which they are committed."""
RETRY_INTERVAL = 0.5
"""Seconds after which reading is tried again, while Redis is unreachable or the projection is rebuilt."""
READY_WITHIN = 1.0
"""Seconds that a probe waits for the first sweep, so that a server with few views serves at once."""
SEARCH_THREADS = 2

T = TypeVar("T")
log = logs.get_logger(__name__)


class IndexFollower:
    """Fills an index and keeps it in step.

    Args:
        index: opened by entering the context.
        models: the read models of the projections that it follows, by view.
        notifications: of their changes.
        waits: bounds the calls that wait for it.
    """

    def __init__(
        self,
        index: SearchIndex,
        models: Mapping[View, ServingReadModel],
        notifications: ChangeNotifications,
        waits: Waits,
    ) -> None:
        self.index = index
        self._models = models
        self._waits = waits
        definition: IndexDefinition = index.definition
        self._woken = asyncio.Event()
        self._documents = FollowedView(models[definition.view], definition.listing, self._woken.set)
        self._flags: Flags | None = None
        self._followed = [self._documents]
        if source := definition.flag:
            flag_views = FollowedView(models[source.view], source.listing, self._woken.set)
            self._flags = Flags(source, flag_views)
            self._followed.insert(0, flag_views)  # documents are made with the flags as they are
        self._due: list[tuple[float, str]] = []
        """A heap of the times at which documents change, with their ids."""
        self._uncommitted: dict[str, int] = {}
        """The versions of views whose documents are not committed yet."""
        self._waiting: dict[Wait, list[tuple[FollowedView, str, int]]] = {}
        self._is_idle = True
        """Whether everything that was read is committed."""
        self.has_served = asyncio.Event()
        """Set once the index was complete."""
        self._has_looked = asyncio.Event()
        """Set once it was, or there was nothing to read."""
        self.commits = 0
        self.read_at_start = 0
        """The number of views that were read until the index was complete."""
        self._running: asyncio.Task[NoReturn] | None = None
        self._writer = ThreadPoolExecutor(1, "search index")
        self._searchers = ThreadPoolExecutor(SEARCH_THREADS, "search")
        for followed in self._followed:
            notifications.add_follower(followed.views.view.projection, followed)

    # What calls use.

    async def search(self, search: Callable[[], T]) -> T:
        """Return the result of a search, made in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._searchers, search)

    async def check_complete(self, reader: FreshReader, *, needs_flag: bool = False) -> None:
        """Check that the index has all views, and, if it is needed, their flags.

        Raises:
            RpcError: `VIEW_REBUILDING`, or an error of the reader.
        """
        incarnation, _ = await reader.views.read_while_ready()
        is_current = incarnation == get_incarnation(self._documents.build)
        if not (self._documents.is_complete and is_current):
            raise reader.views.rebuilding_error()
        if needs_flag and self._flags and not self._flags.followed.is_complete:
            raise self._flags.followed.views.rebuilding_error()

    async def wait_until_fresh(self, reader: FreshReader, *, needs_flag: bool = False) -> None:
        """Wait until every later search includes the writes of the call's consistency token.

        Args:
            reader: of the call; its views and those of the flags include the writes.
            needs_flag: whether the writes that change flags are waited for, too.

        Raises:
            RpcError: the errors of `Freshness.read`.
        """
        if not reader.token:
            return
        followed_views = self._followed if needs_flag else [self._documents]
        needed = [
            (followed, streams.aggregate_id(stream.stream), stream.version)
            for stream in reader.tokens.read_consistency_token(reader.token).streams
            for followed in followed_views
            if streams.stream_type(stream.stream) in followed.views.view.source_streams
        ]
        if not needed or (self._is_idle and self._has_all(needed)):
            return
        for followed, view_id, _ in needed:  # the notification may be lost
            followed.changed.add(view_id)
        self._woken.set()
        with self._waits.begin(reader.deadline) as wait:
            self._waiting[wait] = needed
            try:
                while not (self._is_idle and self._has_all(needed)):
                    if await wait.sleep() is Woken.TIME_UP:
                        text = "the index does not include the token's command yet"
                        raise RpcError("VIEW_BEHIND", text, retry_after=RETRY_AFTER)
            finally:
                del self._waiting[wait]

    @staticmethod
    def _has_all(needed: Sequence[tuple[FollowedView, str, int]]) -> bool:
        return all(followed.versions.get(view_id, 0) >= version for followed, view_id, version in needed)

    async def check_ready(self) -> None:
        """Check that the index was filled since the start.

        Raises:
            NotReady: it is being filled.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_WITHIN):
                await self._has_looked.wait()
                return
        if not self._has_looked.is_set():
            count = len(self._documents.versions) + len(self._uncommitted)
            raise NotReady(f"the search index of {self.index.definition.name} has {count} views so far")

    # The loop.

    async def __aenter__(self) -> Self:
        """Open the index."""
        self._restore(await self._write(self.index.open))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Save the index, and close it."""
        await self.stop_following()
        await self._write(self._save)
        await self._write(self.index.close)
        self._writer.shutdown(wait=False)
        self._searchers.shutdown(wait=False)

    async def run(self) -> None:
        """Keep the index in step until it is closed."""
        self._running = asyncio.create_task(self._follow())
        await self._running

    async def stop_following(self) -> None:
        if self._running is not None:
            await cancel_and_wait(self._running)

    async def _write(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    async def _follow(self) -> NoReturn:
        failures = logs.RepeatedErrors(log, "Search index not updated", index=self.index.definition.name)
        while True:
            await self._wait_for_work()
            self._woken.clear()
            try:
                await self._catch_up()
                failures.reset()
            except RpcError as error:
                if error.reason == "VIEW_REBUILDING":
                    self._has_looked.set()
                else:
                    failures.report(error)
                await asyncio.sleep(RETRY_INTERVAL)
                self._woken.set()
            except (OSError, ValueError) as error:  # of the library: the disk is full, or the index damaged
                failures.report(error)
                await asyncio.sleep(RETRY_INTERVAL)
                await self._begin_again()
            except GenerationSwitched as switch:
                for followed in self._followed:
                    if followed.views.view.projection == switch.projection:
                        followed.model.follow(switch.generation)
                        followed.must_sweep = True
                self._woken.set()

    async def _begin_again(self) -> None:
        """Fill an empty index, and try again later if none can be made."""
        documents = self._documents
        documents.build, documents.is_complete, documents.must_sweep = "", False, True
        documents.versions.clear()
        self._uncommitted.clear()
        self._due.clear()
        self._woken.set()
        with suppress(OSError, ValueError):
            await self._write(self.index.begin)

    async def _wait_for_work(self) -> None:
        pause = max(self._due[0][0] - time(), 0) if self._due else None
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._woken.wait()
        await asyncio.sleep(BATCH_INTERVAL)

    async def _catch_up(self) -> None:
        self._is_idle = False
        now = time()
        while self._due and self._due[0][0] <= now:
            self._documents.changed.add(heapq.heappop(self._due)[1])
        if self._flags:
            try:
                await self._read_all(self._flags.followed)
            except RpcError as error:
                if error.reason != "VIEW_REBUILDING":
                    raise
                self._flags.followed.is_complete = False
                asyncio.get_running_loop().call_later(RETRY_INTERVAL, self._woken.set)
        await self._read_all(self._documents)
        await self._commit()
        self._is_idle = True
        if not self.has_served.is_set() and self._documents.is_complete:
            self.has_served.set()
            self._has_looked.set()
            log.info("Search index ready", index=self.index.definition.name, documents=len(self.index.ids))
            await self._write(self._save)
        for wait, needed in self._waiting.items():
            if self._has_all(needed):
                wait.wake(Woken.REACHED)

    async def _read_all(self, followed: FollowedView) -> None:
        if followed.must_sweep:
            followed.must_sweep = False
            try:
                await self._sweep(followed)
            except BaseException:
                followed.must_sweep = True
                raise
        while view_ids := followed.take_changed():
            try:
                await self._read(followed, view_ids)
            except BaseException:
                followed.changed.update(view_ids)
                raise

    async def _sweep(self, followed: FollowedView) -> None:
        """Read all views whose versions are not known, in a new build all of them."""
        build = await followed.read_build()
        is_new = build != followed.build
        if is_new and followed is self._documents:
            await self._add_numbers()
        if is_new and get_incarnation(build) != get_incarnation(followed.build):
            followed.is_complete = False
        listed, last = set[str](), ""
        while members := await followed.views.get_members(Window(followed.index), last, SLICE_SIZE):
            last = members[-1]
            view_ids = [id_of_member(member) for member in members]
            listed.update(view_ids)
            if not is_new:
                versions = await followed.read_versions(view_ids)
                view_ids = [
                    view_id
                    for view_id, version in zip(view_ids, versions, strict=True)
                    if followed.versions.get(view_id) != version
                ]
            await self._read(followed, view_ids)
        gone = [view_id for view_id in followed.versions if view_id not in listed]
        for start in range(0, len(gone), SLICE_SIZE):
            await self._read(followed, gone[start : start + SLICE_SIZE])
        if await followed.read_build() != build:
            raise followed.views.rebuilding_error()
        await self._commit()
        followed.build, followed.is_complete = build, True

    async def _add_numbers(self) -> None:
        numbering = self.index.definition.numbering
        if numbering is None:
            return
        views = self._models[numbering.view].current.views
        with suppress(RpcError):  # without the view values are numbered as they come
            data = await views.find(numbering.view_id)
            if isinstance(data, bytes):
                self.index.add_numbers(numbering.list_values(data))

    async def _read(self, followed: FollowedView, view_ids: Sequence[str]) -> None:
        if not view_ids:
            return
        followed.changed.difference_update(view_ids)
        rows = await followed.read(view_ids)
        if self._flags and followed is self._flags.followed:
            self._set_flags(self._flags, rows)
        else:
            await self._replace_documents(rows)

    def _set_flags(self, flags: Flags, rows: Sequence[tuple[str, bytes | None, int]]) -> None:
        for view_id, data, version in rows:
            for document_id, has_changed in flags.update(view_id, data).items():
                # After a restart the index may be newer than what was saved of the flags.
                is_known = document_id in self._documents.versions
                if is_known and (has_changed or not self.has_served.is_set()):
                    self._documents.changed.add(document_id)
            flags.followed.set_version(view_id, version)

    async def _replace_documents(self, rows: Sequence[tuple[str, bytes | None, int]]) -> None:
        now = time()
        self.read_at_start += 0 if self.has_served.is_set() else len(rows)
        changes = [
            Change(view_id, data, version, self._flags is not None and view_id in self._flags, now)
            for view_id, data, version in rows
        ]
        due = await self._write(lambda: self._apply(changes))
        for each in due:
            heapq.heappush(self._due, each)
        self._uncommitted.update((change.view_id, change.version) for change in changes)
        if len(self._uncommitted) >= MAX_UNCOMMITTED:
            await self._commit()

    def _apply(self, changes: Sequence[Change]) -> list[tuple[float, str]]:
        documents = self.index.apply(changes)
        return [
            (document.next_change, change.view_id)
            for change, document in zip(changes, documents, strict=True)
            if document is not None and document.next_change is not None
        ]

    async def _commit(self) -> None:
        if not self._uncommitted:
            return
        await self._write(self.index.commit)
        self.commits += 1
        for view_id, version in self._uncommitted.items():
            self._documents.set_version(view_id, version)
        self._uncommitted.clear()

    # What is saved.

    def _save(self) -> None:
        if not self._documents.is_complete or self._uncommitted:
            return
        flags = self._flags
        self.index.folder.write_state(
            SavedState(
                version=self.index.version,
                build=self._documents.build,
                versions=self._documents.versions,
                documents=list(self.index.ids.values()),
                due=self._due,
                flag_build=flags.followed.build if flags else "",
                flag_versions=flags.followed.versions if flags else {},
                flags_on=dict(flags.views_on) if flags else {},
            )
        )

    def _restore(self, state: SavedState | None) -> None:
        if state is None:
            return
        self._documents.build, self._documents.versions = state.build, state.versions
        self._due = state.due
        if flags := self._flags:
            flags.followed.build, flags.followed.versions = state.flag_build, state.flag_versions
            flags.restore(state.flags_on)
