"""Redis's part of the status: checkpoints, readiness and parked aggregates of projections, and leases."""

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from redis.asyncio import Redis

from contracts import streams
from contracts.generations import decode_serving
from contracts.view_layout import View, parse_checkpoint
from operations_server.status.states import ProjectionState, ReadModelState
from operations_server.status.write_model import compute_certain_offset
from projector import leases
from projector.redis_memory import compute_used_percent


class ReadModel:
    """Reads Redis, in two or three round trips.

    Args:
        redis: the connection.
        views: of the projections.
        group: the contexts of the projections, as projectors that run all of them name their group.
        codes: the versions of the projections' code, by projection.
    """

    def __init__(self, redis: Redis, views: Sequence[View], group: str, codes: Mapping[str, str]) -> None:
        self._redis = redis
        self._codes = codes
        self._views = views
        self._group = group

    async def read(self) -> ReadModelState:
        views, kept = await self._find_generations()
        start = monotonic()
        pipeline: Any = self._redis.pipeline(transaction=False)
        pipeline.time()
        pipeline.info("memory")
        pipeline.zrange(leases.GROUPS, 0, -1)
        for view in (*views, *kept):
            pipeline.get(view.ready).hgetall(view.checkpoints).hlen(view.parked).get(view.archived).get(
                view.code
            )
        (seconds, micros), memory, groups, *replies = await pipeline.execute(raise_on_error=False)
        offset = compute_certain_offset(seconds + micros / 1e6, monotonic() - start)
        per_view = zip(
            (*views, *kept), (replies[at : at + 5] for at in range(0, len(replies), 5)), strict=True
        )
        states = [_describe(view, self._codes[view.projection], reply) for view, reply in per_view]
        names = {self._group, *_list_names(groups)}
        return ReadModelState(
            projections={view.projection: state for view, state in zip(views, states, strict=False)},
            holders=await self._read_holders(sorted(names)),
            used_percent=compute_used_percent(memory),
            clock_offset=offset,
            description=_describe_memory(memory),
            kept={
                (view.projection, view.generation): state
                for view, state in zip(kept, states[len(views) :], strict=True)
            },
        )

    async def _find_generations(self) -> tuple[list[View], list[View]]:
        """Return the views in the generations that serve, and in those that are kept beside them."""
        pipeline: Any = self._redis.pipeline(transaction=False)
        for view in self._views:
            pipeline.get(view.serving).hkeys(view.generations)
        replies = await pipeline.execute(raise_on_error=False)
        serving, kept = list[View](), list[View]()
        for view, name, names in zip(self._views, replies[::2], replies[1::2], strict=True):
            served = view.at(decode_serving(None if isinstance(name, Exception) else name))
            serving.append(served)
            kept += [view.at(each) for each in _list_names(names) if each != served.generation]
        return serving, kept

    async def _read_holders(self, groups: Sequence[str]) -> Mapping[str, Mapping[int, str]]:
        keys = [leases.lease_key(group, number) for group in groups for number in range(streams.PARTITIONS)]
        values: Any = iter(await self._redis.mget(keys))
        holders: dict[str, dict[int, str]] = {}
        for group in groups:
            for number in range(streams.PARTITIONS):
                if value := next(values):
                    for context in group.split(","):
                        holders.setdefault(context, {})[number] = value.decode(errors="replace")
        return holders


def _describe(view: View, code: str, reply: Sequence[Any]) -> ProjectionState:
    """Return the state of a projection; its error if one of its keys has another type."""
    if errors := [each for each in reply if isinstance(each, Exception)]:
        return ProjectionState(error=str(errors[0]), generation=view.generation)
    ready, checkpoints, parked, archived, built_by = reply
    return ProjectionState(
        ready=(ready or b"").decode(errors="replace"),
        checkpoints={
            int(key): parse_checkpoint(value) for key, value in checkpoints.items() if key.isdigit()
        },
        parked=parked,
        archived=int(archived) if archived and archived.isdigit() else 0,
        generation=view.generation,
        code_changed=bool(built_by) and built_by.decode(errors="replace") != code,
    )


def _list_names(reply: Any) -> Sequence[str]:
    """Return the names in a reply; none if the key has another type."""
    return [] if isinstance(reply, Exception) else [name.decode(errors="replace") for name in reply]


def _describe_memory(memory: Mapping[str, int]) -> str:
    used, percent = f"{memory['used_memory'] / 1e6:.0f} MB used", compute_used_percent(memory)
    return f"{used}, no maxmemory" if percent is None else f"{used}, {percent} % of maxmemory"
