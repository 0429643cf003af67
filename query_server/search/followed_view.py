"""The views of one projection, as an index has read them."""

from collections.abc import Callable, Sequence

from query_server.read_models import ServingReadModel
from query_server.view_reader import ViewReader

SLICE_SIZE = 500
"""Views that are read with one pipeline."""


class FollowedView:
    """What is known of the views of one projection. It receives their changes as a follower.

    Args:
        model: of the projection.
        listing: the name of the index in Redis that lists all views.
        wake: called when there is something to read.
    """

    def __init__(self, model: ServingReadModel, listing: str, wake: Callable[[], None]) -> None:
        self.model = model
        self._listing = listing
        self._wake = wake
        self.build = ""
        """The build that the last complete sweep has read."""
        self.versions: dict[str, int] = {}
        """By view id."""
        self.changed: set[str] = set()
        """The ids of views to read."""
        self.must_sweep = False
        self.is_complete = False
        """Whether all views of one build were read."""

    @property
    def views(self) -> ViewReader:
        return self.model.current.views

    @property
    def index(self) -> str:
        return self.views.view.index(self._listing)

    def add_changed(self, generation: str, view_ids: Sequence[str]) -> None:
        if generation == self.views.view.generation:
            self.changed.update(view_ids)
            self._wake()

    def add_missed(self) -> None:
        self.must_sweep = True
        self._wake()

    def take_changed(self) -> list[str]:
        return [self.changed.pop() for _ in range(min(len(self.changed), SLICE_SIZE))]

    def set_version(self, view_id: str, version: int) -> None:
        """Note the version that was read; 0 of a view that does not exist."""
        if version:
            self.versions[view_id] = version
        else:
            self.versions.pop(view_id, None)

    async def read_build(self) -> str:
        _, (build,) = await self.views.read_while_ready(("GET", self.views.view.build))
        if build is None:
            raise self.views.rebuilding_error()
        return f"{self.views.view.generation} {build.decode()}"

    async def read_versions(self, view_ids: Sequence[str]) -> list[int]:
        """Return versions, 0 for a view that does not exist."""
        key = self.views.view.key
        _, rows = await self.views.read_while_ready(*(("HGET", key(each), "version") for each in view_ids))
        return [self.views.parse_version(each, version) for each, version in zip(view_ids, rows, strict=True)]

    async def read(self, view_ids: Sequence[str]) -> list[tuple[str, bytes | None, int]]:
        """Return ids, serialised views and versions; no view where it does not exist or cannot be read."""
        key, views = self.views.view.key, self.views
        _, rows = await views.read_while_ready(
            *(("HMGET", key(each), "data", "version") for each in view_ids)
        )
        checked = views.check_all(view_ids, [data for data, _ in rows])
        return [
            (view_id, data if isinstance(data, bytes) else None, views.parse_version(view_id, version))
            for view_id, data, (_, version) in zip(view_ids, checked, rows, strict=True)
        ]


def get_incarnation(build: str) -> str:
    """Return the database's incarnation of a build (`FollowedView.build`)."""
    return build.partition(" ")[2].partition("/")[0]
