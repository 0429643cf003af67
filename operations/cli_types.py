"""Types of arguments: durations, reasons, times, and versions of a stream."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from google.protobuf.timestamp_pb2 import Timestamp

from runtime.process.durations import parse_duration

MAX_REASON_LENGTH = 500
"""Characters of an operator's reason: a context's commands take it over."""
MAX_NUMBER = 2**63 - 1


class Duration(click.ParamType[timedelta]):
    """A duration such as 90s, 15m, 1h or 7d."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration; fail with an example if the text is none."""
        try:
            return value if isinstance(value, timedelta) else parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Number(click.IntRange):
    """A whole number that a request can hold."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number; fail if it is out of range."""
        number: int = super().convert(value, param, ctx)
        if number > MAX_NUMBER:
            self.fail(f"{number} is not in the range x<={MAX_NUMBER}.", param, ctx)
        return number


class Reason(click.ParamType[str]):
    """A text that every command of a context takes as a reason: one printable line of limited length."""

    name = "text"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text; fail if a context would refuse it, which would block the saga."""
        text = str(value)
        if not 0 < len(text.strip()) <= len(text) <= MAX_REASON_LENGTH or not text.isprintable():
            self.fail(f"must be one line of 1 to {MAX_REASON_LENGTH} printable characters", param, ctx)
        return text


class Moment(click.ParamType[datetime]):
    """A time in ISO 8601, in UTC unless it has an offset, or a duration before now."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time; fail with examples if the text is none."""
        if isinstance(value, datetime):
            return value
        try:
            return parse_moment(str(value))
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is not a time like 2026-01-31T12:00:00Z, or like 15m for 15 minutes ago",
                param,
                ctx,
            )


@dataclass(frozen=True)
class AsOf:
    """The version or the time as of which a stream is shown; neither for now."""

    version: int = 0
    time: datetime | None = None

    def apply(self, request: Any) -> Any:
        """Return a request with this point set."""
        request.version = self.version
        if self.time is not None:
            request.time.CopyFrom(to_timestamp(self.time))
        return request


class AsOfType(click.ParamType[AsOf]):
    """A version, which is a number, or a time as `Moment` takes it."""

    name = "time|version"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> AsOf:
        """Return the point; fail with examples if the text is none."""
        if isinstance(value, AsOf):
            return value
        text = str(value)
        if text.isascii() and text.isdecimal():
            if not 1 <= len(text) <= 19 or not 1 <= int(text) <= MAX_NUMBER:
                self.fail(f"{text!r} is not a version: they go from 1 to {MAX_NUMBER}", param, ctx)
            return AsOf(version=int(text))
        try:
            return AsOf(time=parse_moment(text))
        except (ValueError, OverflowError):
            self.fail(
                f"{text!r} is neither a version like 3 nor a time like 2026-01-31T12:00:00Z or 15m",
                param,
                ctx,
            )


def to_timestamp(time: datetime | None) -> Timestamp | None:
    """Return a time for a request; None for none."""
    if time is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


def parse_moment(text: str) -> datetime:
    """Return the time of a text: ISO 8601, or a duration before now.

    Raises:
        ValueError: the text is neither.
        OverflowError: it is out of range.
    """
    try:
        return datetime.now(UTC) - parse_duration(text)
    except ValueError:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
