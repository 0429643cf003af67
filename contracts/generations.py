"""The generations of a projection: which one serves, and which are kept beside it.

How it works. A generation is a complete read model of its projection, under keys of its own. One serves: the
key `View.serving` names it, and readers compare that key in the same request as their data, so that a switch
takes effect for all of them at once. The others have a record in the hash `View.generations`. Projectors keep
up to date the serving generation and all with a record, so that a switch and its rollback serve what is
current. A generation without record is none: its keys are deleted, and no projector begins a build of it.
"""

from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Protocol

import msgspec

from contracts.view_layout import GENERATION, View


class GenerationRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A generation that is kept beside the serving one. Times are milliseconds since 1970."""

    begun: int = 0
    """When its build was requested; 0 once it served."""
    served_until: int = 0
    """When it stopped to serve; 0 if it never served."""
    rate: float | None = None
    """The events that its build applies in a second, at most; None for no limit."""
    paused: str = ""
    """Why its build pauses, for people; empty if it does not."""
    rolled_back: bool = False
    """Whether it stopped to serve by a rollback, so that no further rollback returns to it."""
    change: str = ""
    """The id of the change that wrote this record, by which Redis knows one that it is asked for again."""


class GenerationsUnreadable(Exception):
    """The record of a generation cannot be read."""


_decode = msgspec.json.Decoder(GenerationRecord).decode
encode_record = msgspec.json.Encoder().encode


def decode_record(value: bytes) -> GenerationRecord:
    """Return a record.

    Raises:
        GenerationsUnreadable: it is none.
    """
    try:
        return _decode(value)
    except msgspec.MsgspecError as error:
        raise GenerationsUnreadable(str(error)) from error


def decode_serving(value: bytes | None) -> str:
    """Return the serving generation that the value of `View.serving` names."""
    return (value or b"").decode(errors="replace") or GENERATION


def next_generation(names: Iterable[str]) -> str:
    """Return the name of a new generation, higher than these."""
    return f"{GENERATION}.{max(map(get_number, names), default=0) + 1}"


def get_number(name: str) -> int:
    """Return the number of a generation, which is higher than those of all that were begun before."""
    number = name.partition(".")[2]
    return int(number) if number.isdecimal() else 0


class Reader(Protocol):
    """Redis, as far as it is needed here."""

    def mget(self, keys: Any) -> Awaitable[Any]: ...

    def hkeys(self, name: str) -> Awaitable[Any]: ...


async def read_serving(redis: Reader, views: Sequence[View]) -> list[View]:
    """Return these views in the generations that serve, in the same order."""
    if not views:
        return []
    values = await redis.mget([view.serving for view in views])
    return [view.at(decode_serving(value)) for view, value in zip(views, values, strict=True)]


async def read_all(redis: Reader, view: View) -> list[View]:
    """Return a view in all generations of its projection; first in the one that serves."""
    (serving,) = await read_serving(redis, [view])
    names = [name.decode(errors="replace") for name in await redis.hkeys(view.generations)]
    return [serving, *(view.at(name) for name in sorted(names) if name != serving.generation)]
