"""The comparison of two generations of a projection, view by view.

How it works. The keys of both generations are gone through; each view is read from both together and compared
at equal versions. Both are kept up to date meanwhile, each by its own runner, so a view that has another
version in one of them is read again, several times, before that counts as a difference.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any
from zlib import crc32

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message
from redis.asyncio import Redis

from contracts.personal_fields import mask_personal
from contracts.view_layout import View
from operations_server.explanations.words import cut
from operations_server.records.content import Content

PAGE = 500
"""Views that are read at once."""
MAX_EXAMPLES = 10
ROUNDS, ROUND_PAUSE = 25, 0.2
"""Times that views of different versions are read again, and the seconds before each."""
MAX_TEXT_LENGTH = 200
"""Characters of a value in an example."""
FIELDS = ("data", "version", "entries", "contributions", "parked")


class Comparison:
    """The comparison of two generations; `run` it, then read the counts.

    Args:
        redis: the connection.
        serving: the view in the generation that serves.
        other: the view in the other one.
        sample: about how many views to compare; 0 for all.
        content: how much of the views the examples show.
    """

    def __init__(
        self, redis: Redis, serving: View, other: View, sample: int = 0, content: Content = Content.MASKED
    ) -> None:
        self._redis, self._serving, self._other = redis, serving, other
        self._sample, self._content = sample, content
        self.compared = 0
        self.differing = 0
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[tuple[str, str, str]]] = {}
        """By field: the id, and the values in both generations."""

    async def run(self) -> AsyncIterator[int]:
        """Compare; yield the number of views compared so far, now and then."""
        step = 1
        if self._sample:
            step = max(1, await self._count() // self._sample)
        waiting: list[str] = []
        async for ids in self._list_ids(self._serving, step):
            waiting += await self._compare(ids)
            yield self.compared
        async for ids in self._list_ids(self._other, step):
            known = await self._exist(self._serving, ids)
            waiting += await self._compare(
                [each for each, exists in zip(ids, known, strict=True) if not exists]
            )
            yield self.compared
        for number in range(ROUNDS):
            if not waiting:
                return
            await asyncio.sleep(ROUND_PAUSE)
            waiting = await self._compare(waiting, is_last=number == ROUNDS - 1)
            yield self.compared

    async def _count(self) -> int:
        count = 0
        async for ids in self._list_ids(self._serving, 1):
            count += len(ids)
        return count

    async def _list_ids(self, view: View, step: int) -> AsyncIterator[list[str]]:
        """Yield the ids of views, of so many one, in pages; one may come twice."""
        prefix, cursor = view.key("")[:-1], -1
        while cursor != 0:
            page: Any
            cursor, page = await self._redis.scan(max(cursor, 0), match=view.patterns[0], count=PAGE)
            ids = [key.decode(errors="replace").removeprefix(prefix).removesuffix("}") for key in set(page)]
            if chosen := [each for each in ids if crc32(each.encode()) % step == 0]:
                yield chosen

    async def _exist(self, view: View, ids: Sequence[str]) -> list[int]:
        pipeline: Any = self._redis.pipeline(transaction=False)
        for each in ids:
            pipeline.exists(view.key(each))
        return list(await pipeline.execute())

    async def _compare(self, ids: Sequence[str], *, is_last: bool = False) -> list[str]:
        """Compare views; return those to read again, because their versions differ."""
        if not ids:
            return []
        pipeline: Any = self._redis.pipeline(transaction=False)
        for each in ids:
            for view in (self._serving, self._other):
                pipeline.hmget(view.key(each), *FIELDS)
                pipeline.hlen(view.history(each))
        replies = await pipeline.execute(raise_on_error=False)
        waiting = []
        for number, each in enumerate(ids):
            first, first_history, second, second_history = replies[4 * number : 4 * number + 4]
            if not is_last and self._may_catch_up(first, second):
                waiting.append(each)
                continue
            self.compared += 1
            found = dict(
                self._find_differences([*_read(first), first_history], [*_read(second), second_history])
            )
            self.differing += bool(found)
            for field, values in found.items():
                self.counts[field] += 1
                if len(examples := self.examples.setdefault(field, [])) < MAX_EXAMPLES:
                    examples.append((each, *(("", "") if self._content is Content.NONE else values)))
        return waiting

    def _may_catch_up(self, first: Any, second: Any) -> bool:
        if isinstance(first, Exception) or isinstance(second, Exception):
            return False
        return bool(first[1] != second[1] and not (first[4] or second[4]))

    def _find_differences(self, first: Sequence[Any], second: Sequence[Any]) -> Any:
        """Yield each field that differs, with its values in both generations."""
        (data, version, entries, contributions, parked, history) = first
        (other_data, other_version, other_entries, other_contributions, other_parked, other_history) = second
        if version is None or other_version is None:
            if version != other_version:
                yield ("(surplus)" if version is None else "(missing)"), ("", "")
            return
        if bool(parked) != bool(other_parked):
            yield "(parked)", (_shorten(parked), _shorten(other_parked))
        if version != other_version:
            yield "(version)", (_shorten(version), _shorten(other_version))
            return
        if data != other_data:
            yield from self._find_fields(data, other_data)
        for field, value, other_value in (
            ("(index entries)", entries, other_entries),
            ("(contributions)", contributions, other_contributions),
        ):
            if (value or b"[]") != self._as_serving(other_value or b"[]"):
                yield field, (_shorten(value), _shorten(other_value))
        if history != other_history:
            yield "(history)", (f"{history} entries", f"{other_history} entries")

    def _as_serving(self, text: bytes) -> bytes:
        """Return entries or contributions with the keys of the generation that serves."""
        name = self._serving.projection
        return text.replace(
            f":{name}:{self._other.generation}:".encode(), f":{name}:{self._serving.generation}:".encode()
        )

    def _find_fields(self, data: bytes | None, other_data: bytes | None) -> Any:
        try:
            first = self._serving.message.FromString(data or b"")
            second = self._serving.message.FromString(other_data or b"")
        except DecodeError as error:
            yield "(unreadable)", (str(error), "")
            return
        values, other_values = (
            {field.name: value for field, value in each.ListFields()} for each in (first, second)
        )
        names = [
            name
            for name in {**values, **other_values}
            if name not in values or name not in other_values or values[name] != other_values[name]
        ]
        texts, other_texts = self._show(first), self._show(second)
        for name in names:
            yield name, (_to_text(texts.get(name, "")), _to_text(other_texts.get(name, "")))
        if not names:
            yield "(unknown fields)", ("", "")

    def _show(self, message: Message) -> dict[str, Any]:
        fields = MessageToDict(message, preserving_proto_field_name=True)
        if self._content is not Content.FULL:
            mask_personal(message, fields)
        return fields


def _read(reply: Any) -> Sequence[Any]:
    """Return the fields of a view; what has another type of key counts as missing."""
    return [None] * len(FIELDS) if isinstance(reply, Exception) else reply


def _to_text(value: Any) -> str:
    return _shorten(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _shorten(value: bytes | str | None) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else value or ""
    return cut(text, MAX_TEXT_LENGTH)
