"""The views as the running release has stored them in Redis."""

from collections.abc import Collection, Sequence
from typing import Any, Self

import msgspec

from contracts.generations import decode_serving
from contracts.view_layout import View
from operations.server_errors import summarize
from runtime.process.start_error import NotAsked
from runtime.redis.address import parse_address
from runtime.redis.pipeline import Command, RedisPipeline

TIMEOUT = 30.0
"""Seconds without a reply after which Redis counts as away."""
FIELDS = ("data", "version", "entries", "contributions", "parked", "archived")

Row = tuple[str, ...]
"""An index entry or a contribution: the key, and what it has there."""
_decode_rows = msgspec.json.Decoder(tuple[Row, ...]).decode


class StoredView(msgspec.Struct, frozen=True):
    """One view; its fields are those of its hash (contracts/view_layout.py)."""

    version: int = 0
    data: bytes | None = None
    entries: bytes | None = None
    contributions: bytes | None = None
    parked_version: int = 0
    """The version of the event that the running release cannot apply; 0 if it has applied all."""
    is_archived: bool = False
    error: str = ""
    """Why it cannot be read; empty if it can."""


class StoredViews:
    """A connection to Redis that reads views. Entering the context connects.

    Raises:
        InvalidSetting: the URL is not a Redis URL.
    """

    def __init__(self, redis_url: str) -> None:
        self._pipeline = RedisPipeline(parse_address(redis_url), TIMEOUT, 0.0)

    async def __aenter__(self) -> Self:
        await self._pipeline.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._pipeline.__aexit__(*error)

    async def read(self, pairs: Collection[tuple[View, str]]) -> list[StoredView]:
        """Return views by projection and id; one that does not exist has version 0."""
        replies = await self._send([("HMGET", view.key(id_), *FIELDS) for view, id_ in pairs])
        return [_parse(reply) for reply in replies]

    async def read_history(
        self, wanted: Sequence[tuple[View, str, Sequence[int]]]
    ) -> list[tuple[dict[int, bytes], int]]:
        """Return the history entries of views by version, and the first version that has not been removed.

        Args:
            wanted: projections, ids and versions.
        """
        commands: list[Command] = []
        for view, id_, versions in wanted:
            commands.append(("HMGET", view.history(id_), *versions))
            commands.append(("HMGET", view.key(id_), "history_from", "archived"))
        replies, result = await self._send(commands), []
        for (_, _, versions), entries, removal in zip(wanted, replies[::2], replies[1::2], strict=True):
            history_from, archived = removal if isinstance(removal, list) else (None, None)
            found = zip(versions, entries, strict=True) if isinstance(entries, list) else ()
            first = versions[-1] + 1 if archived else _parse_number(history_from)
            result.append(({version: entry for version, entry in found if entry is not None}, first))
        return result

    async def find_serving(self, views: Sequence[View]) -> dict[str, str]:
        """Return the serving generations of the projections that have caught up once, by their names."""
        values = await self._send([("GET", view.serving) for view in views])
        serving = [view.at(decode_serving(value)) for view, value in zip(views, values, strict=True)]
        replies = await self._send([("EXISTS", view.ready) for view in serving])
        return {
            view.projection: view.generation
            for view, reply in zip(serving, replies, strict=True)
            if reply == 1
        }

    async def _send(self, commands: Sequence[Command]) -> Sequence[Any]:
        """Return the replies to commands; one may be an error.

        Raises:
            NotAsked: Redis is away.
        """
        if not commands:
            return ()
        connection = self._pipeline.get_connection()
        replies: Any = ConnectionError("no connection")
        if connection is not None:
            replies = await connection.send_all(commands)
        if isinstance(replies, Exception):
            raise NotAsked(f"Redis is unreachable: {summarize(replies)}")
        return list(replies)


def parse_rows(value: bytes | None) -> Sequence[Row] | None:
    """Return the entries or contributions of a view; None if they cannot be read."""
    try:
        return _decode_rows(value) if value else ()
    except msgspec.DecodeError:
        return None


def _parse(reply: Any) -> StoredView:
    if not isinstance(reply, list):
        return StoredView(error=str(reply))
    data, version, entries, contributions, parked, archived = reply
    if version is not None and not version.isdigit():
        return StoredView(error="its version is no number")
    return StoredView(
        int(version or 0),
        data,
        entries,
        contributions,
        _parse_parked(parked),
        archived is not None,
    )


def _parse_parked(parked: bytes | None) -> int:
    try:
        return int(msgspec.json.decode(parked)["version"]) if parked else 0
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return 0


def _parse_number(value: bytes | None) -> int:
    return int(value) if value and value.isdigit() else 0
