"""The bound on the age of an answer, sent with every response in trailing metadata.

How it works. Projectors store the time up to which a projection includes all committed events, and with each
parked view the time since which it lacks one, both by Redis's clock. One sampler reads these times for all
projections of the process, together with Redis's clock, and moves them to the monotonic clock of this
process: as early as the round trip allows, so that the bound is never too small. Between samples it grows.

An answer takes the sample that is there when it begins to read (`AnswerAge`). What it reads cannot be older,
unless Redis was replaced by one with older data; that ends the connection, and a sample counts only for the
connection on which it was taken. Where nothing is known, nothing is sent.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from math import ceil, inf
from time import monotonic
from typing import Any, NoReturn, Protocol

import msgspec

from contracts.generations import decode_serving
from contracts.streams import PARTITIONS
from contracts.view_layout import View
from query_server.redis_client import RedisClient
from runtime.grpc.metadata import STALENESS
from runtime.grpc.rpc_error import RpcError

INTERVAL = 0.25
"""Seconds between two samples while there are queries."""
IDLE_INTERVAL = 1.0
"""Seconds between two samples while there are none; the next query brings the next sample forward."""
UNKNOWN = -inf
"""The moment of a bound that nobody knows."""


class Sample(msgspec.Struct, frozen=True, gc=False):
    """One reading of a projection's times. Moments are seconds of the monotonic clock, or UNKNOWN."""

    connection: int
    """The number of the connection to Redis."""
    stale_since: float
    """Before this moment all committed events were included, except those of parked aggregates."""
    parked_since: float
    """Since when the aggregate that is parked the longest lacks an event; infinite if none is parked."""
    lead: float
    """The lead of Redis's clock over the monotonic clock, in seconds, or more."""


def _to_moment(millis: float, lead: float) -> float:
    """Return the moment of a time of Redis's clock in milliseconds since 1970; 0 is UNKNOWN."""
    return millis / 1000 - lead if millis else UNKNOWN


class Staleness:
    """The last sample of one generation of a projection."""

    def __init__(self, redis: RedisClient, view: View) -> None:
        self.redis = redis
        self.view = view
        self.sample: Sample | None = None
        self.on_use: Callable[[], None] = lambda: None
        """Called by each query that uses the sample."""

    def set(self, connection: int, lead: float, times: list[bytes], parked: list[Any], count: int) -> None:
        """Set the sample.

        Args:
            connection: the number of the connection on which it was taken.
            lead: of Redis's clock over the monotonic clock.
            times: the hash `as_of`, flat.
            parked: the first of the set `parked_since`, with its score.
            count: the number of parked aggregates without the number of those in that set.

        Raises:
            ValueError: a time is no number.
        """
        as_of = min(map(int, times[1::2])) if len(times) == 2 * PARTITIONS else 0
        if as_of / 1000 > lead + monotonic():
            as_of = 0  # Redis's clock was set back, or belongs to another machine now
        parked_since = _to_moment(float(parked[1]), lead) if parked else inf
        if count:
            parked_since = UNKNOWN
        self.sample = Sample(connection, _to_moment(as_of, lead), parked_since, lead)


class Sampled(Protocol):
    """A projection, as far as it is needed here."""

    @property
    def staleness(self) -> Staleness:
        """Of the generation that serves."""
        ...

    def follow(self, generation: str) -> None:
        """Take note of the generation that serves."""


class StalenessSampler:
    """Takes the samples of all projections of a process, of the generations that serve."""

    def __init__(self, redis: RedisClient, projections: Collection[Sampled]) -> None:
        self._redis = redis
        self._projections = projections
        self._is_used = asyncio.Event()

    async def run(self) -> NoReturn:
        """Take samples until cancelled."""
        while True:
            self._is_used.clear()
            await self.take()
            await asyncio.sleep(INTERVAL)
            with suppress(TimeoutError):
                async with asyncio.timeout(IDLE_INTERVAL - INTERVAL):
                    await self._is_used.wait()

    async def take(self) -> None:
        """Take one sample of each projection. While Redis is away the last ones stay, and grow old."""
        try:
            await self._take(self._projections)
        except RpcError as error:
            if error.reason == "VIEW_UNREADABLE":  # a key of another type: its own projection's fault alone
                for projection in self._projections:
                    await self._take_alone(projection)

    def read_ages(self) -> dict[str, float]:
        """Return by projection the seconds for which its views may lack events; without those unknown."""
        now = monotonic()
        models = [projection.staleness for projection in self._projections]
        return {
            model.view.projection: round(now - model.sample.stale_since, 3)
            for model in models
            if model.sample is not None and model.sample.stale_since != UNKNOWN
        }

    async def _take_alone(self, projection: Sampled) -> None:
        model = projection.staleness
        try:
            await self._take([projection])
        except RpcError as error:
            if error.reason == "VIEW_UNREADABLE":
                model.sample = None

    async def _take(self, projections: Collection[Sampled]) -> None:
        if switched := await self._take_of_serving(projections):
            await self._take_of_serving(switched)

    async def _take_of_serving(self, projections: Collection[Sampled]) -> list[Sampled]:
        """Take a sample of each projection; return those of which another generation serves."""
        models = [projection.staleness for projection in projections]
        for model in models:
            model.on_use = self._is_used.set
        connection, sent_at = self._redis.connections, monotonic()
        commands = [command for model in models for command in _list_commands(model.view)]
        read_serving = ("MGET", *(model.view.serving for model in models))
        serving, *replies, (seconds, microseconds) = await self._redis.pipeline(
            read_serving, *commands, ("TIME",)
        )
        # Redis read its clock after `sent_at`, so its lead is not greater than this.
        lead = int(seconds) + int(microseconds) / 1e6 - sent_at
        switched: list[Sampled] = []
        for position, (projection, model) in enumerate(zip(projections, models, strict=True)):
            if (generation := decode_serving(serving[position])) != model.view.generation:
                projection.follow(generation)
                switched.append(projection)
                continue
            times, first_parked, listed, dated = replies[4 * position : 4 * position + 4]
            try:
                model.set(connection, lead, times, first_parked, listed - dated)
            except ValueError:
                model.sample = None
        return switched


def _list_commands(view: View) -> Iterable[tuple[str | int, ...]]:
    yield ("HGETALL", view.as_of)
    yield ("ZRANGE", view.parked_since, 0, 0, "WITHSCORES")
    yield ("HLEN", view.parked)
    yield ("ZCARD", view.parked_since)


class _Parked(msgspec.Struct):
    """The record of a parked aggregate."""

    stale_since: int = 0
    """Milliseconds since 1970, by Redis's clock; 0 if it is unknown."""


_decode_parked = msgspec.json.Decoder(_Parked).decode


class AnswerAge:
    """The bound on the age of one answer: of the projection, and of the parked views that it shows."""

    __slots__ = ("_own_since", "_sample", "_shows_all", "_staleness")

    def __init__(self, staleness: Staleness | None = None) -> None:
        self._staleness = staleness
        self.restart()

    def restart(self) -> None:
        """Forget what was read: the answer is read again from here on."""
        self._sample = None
        if self._staleness is not None:
            self._staleness.on_use()
            self._sample = self._staleness.sample
        self._own_since = inf
        self._shows_all = False

    def include_parked(self, record: bytes) -> None:
        """Include a parked view, by its record."""
        try:
            since = _decode_parked(record).stale_since
        except msgspec.MsgspecError:
            since = 0
        if self._sample is not None:
            self._own_since = min(self._own_since, _to_moment(since, self._sample.lead))

    def include_all(self) -> None:
        """Include all parked views: a list or a sum may lack any of them, or show it out of date."""
        self._shows_all = True

    def include_unknown(self) -> None:
        """Include what has no known bound."""
        self._own_since = UNKNOWN

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the trailing metadata of a response that is sent now; empty if the bound is unknown."""
        sample, staleness = self._sample, self._staleness
        if sample is None or staleness is None or sample.connection != staleness.redis.connections:
            return ()
        since = min(sample.stale_since, self._own_since)
        if self._shows_all:
            since = min(since, sample.parked_since)
        if since == UNKNOWN:
            return ()
        return ((STALENESS, str(max(0, ceil((monotonic() - since) * 1000)))),)


def select_oldest(ages: Sequence[AnswerAge]) -> tuple[tuple[str, str], ...]:
    """Return the trailing metadata of a response from several projections; empty if a bound is unknown."""
    bounds = [age.metadata() for age in ages]
    return max(bounds, key=lambda bound: int(bound[0][1])) if all(bounds) else ()
