"""A projection's views as the projector left them in Redis, and whether they are all there.

Redis may have been flushed, or the projection may still be filling. What is found is an answer even then;
that something is not there is one only while the projection's presence mark stands.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from query_server.reader import Command, Reader
from runtime.errors import Refusal
from runtime.views import View

_entries = msgspec.json.Decoder(list[tuple[str, str]]).decode


class Listed(msgspec.Struct, frozen=True):
    """A view as a list needs it: its bytes, and which index entries it has now."""

    data: bytes
    entries: Sequence[tuple[str, str]]


class ViewReader:
    """Reads the views of one projection.

    Every method raises

        Refusal: `VIEW_REBUILDING`, the projection has not caught up, so absence proves nothing;
            `READ_MODEL_UNAVAILABLE`, Redis is away.
    """

    def __init__(self, reader: Reader, view: View) -> None:
        self.view = view
        self._reader = reader
        self._present: Command = ("GET", view.present)

    async def get(self, view_id: str) -> bytes | None:
        """Return a serialised view, or None where there certainly is none."""
        data: bytes | None = await self._reader.call(*self.data_of(view_id))
        if data:
            return data
        _, (data,) = await self.complete(self.data_of(view_id))
        return data or None

    async def complete(self, *commands: Command) -> tuple[str, list[Any]]:
        """Return replies that were read while the projection held everything.

        Returns:
            The incarnation of the database that the projection follows, and the replies.
        """
        before, *replies, after = await self._reader.pipeline(self._present, *commands, self._present)
        if before is None or before != after:
            raise Refusal("VIEW_REBUILDING", "the view is being rebuilt", self._name(), retry_after=1.0)
        return before.decode(), replies

    async def members(self, index: str, after: str, count: int) -> list[str]:
        """Return members of an index, newest first.

        Args:
            index: the key of the index.
            after: the member that the answer follows on; empty to begin with the newest.
            count: how many members at the most.
        """
        top = f"({after}" if after else "+"
        window = ("ZRANGE", index, top, "-", "BYLEX", "REV", "LIMIT", 0, count)
        _, (members,) = await self.complete(window)
        return [member.decode() for member in members]

    async def listed(self, view_ids: Sequence[str]) -> list[Listed | None]:
        """Return several views with their entries; None for each that is not there."""
        commands = [("HMGET", self.view.key(view_id), "data", "entries") for view_id in view_ids]
        _, found = await self.complete(*commands)
        return [Listed(data, _entries(entries or b"[]")) if data else None for data, entries in found]

    def data_of(self, view_id: str) -> Command:
        """Return the command that reads a serialised view."""
        return ("HGET", self.view.key(view_id), "data")

    def progress_of(self, view_id: str, field: str) -> Command:
        """Return the command that reads how far a view (`version`) or all that follows it (`settled`) is."""
        return ("HGET", self.view.key(view_id), field)

    def _name(self) -> dict[str, str]:
        return {"projection": self.view.projection}
