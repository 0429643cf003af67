"""The flags of documents, each of which depends on any number of views of another projection."""

from collections import Counter
from collections.abc import Mapping

from query_server.search.definition import FlagSource
from query_server.search.followed_view import FollowedView


class Flags:
    """Which documents have their flag on: those of which a view has it on.

    Args:
        source: reads the views.
        followed: the views.
    """

    def __init__(self, source: FlagSource, followed: FollowedView) -> None:
        self._source = source
        self.followed = followed
        self._views_on: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        """The numbers of views that have it on, by document's id."""

    @property
    def views_on(self) -> Mapping[str, str]:
        """The document's id of each view that has its flag on."""
        return self._views_on

    def restore(self, views_on: Mapping[str, str]) -> None:
        self._views_on = dict(views_on)
        self._counts = Counter(views_on.values())

    def __contains__(self, document_id: str) -> bool:
        return document_id in self._counts

    def update(self, view_id: str, data: bytes | None) -> dict[str, bool]:
        """Take a view as it is now, None if it does not exist.

        Returns:
            The ids of the documents that it concerns or concerned, each with whether its flag has changed.
        """
        before = self._views_on.pop(view_id, "")
        document_id, is_on = self._source.read(data) if data else ("", False)
        concerned = {before, document_id} - {""}
        had_flag = {each: each in self for each in concerned}
        if before:
            self._counts[before] -= 1
        if is_on:
            self._views_on[view_id] = document_id
            self._counts[document_id] += 1
        for each in concerned:
            if not self._counts[each]:
                del self._counts[each]
        return {each: had_flag[each] != (each in self) for each in concerned}
