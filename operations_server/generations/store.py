"""The generations of a projection in Redis, as operators see and change them.

How it works. `contracts.generations` describes the keys. Each change is one script that checks what the
operator has seen, so two operators at the same time do not undo each other. To prune is to delete the record
and the state keys first, after which no projector writes, and then the rest page by page.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from time import time
from typing import Any, Literal
from uuid import uuid4

from redis.asyncio import Redis

from contracts import streams
from contracts.generations import (
    GenerationRecord,
    decode_record,
    decode_serving,
    encode_record,
    next_generation,
)
from contracts.view_layout import GENERATION, View, parse_checkpoint

SCAN_PAGE = 1_000
"""Keys that are looked at in one round trip."""
MEASURED_SHARE = 20
"""Of so many views, one is measured."""

# Begins a generation unless the records have changed. Returns 1 if it did, also if the client asks again.
BEGIN = """
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return 1 end
if redis.call('HLEN', KEYS[1]) ~= tonumber(ARGV[3]) then return 0 end
return redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
"""

# Replaces a record unless it has changed. Returns 1 if it did, also if the client asks again.
REPLACE = """
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored ~= ARGV[2] and stored ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""

# Lets another generation serve, if the first one does. Returns 1 if it did, also if the client asks again,
# 0 if the generations have changed, -1 unless both follow the same database.
SWITCH = """
local serving, generations, old_ready, new_ready = unpack(KEYS)
local old, new, record, first, channel, empty = unpack(ARGV)
if redis.call('GET', serving) == new and redis.call('HGET', generations, old) == record then return 1 end
if (redis.call('GET', serving) or first) ~= old then return 0 end
if redis.call('HEXISTS', generations, new) == 0 then return 0 end
local ready = redis.call('GET', new_ready)
if not ready or ready ~= (redis.call('GET', old_ready) or ready) then return -1 end
redis.call('HDEL', generations, new)
redis.call('HSET', generations, old, record)
redis.call('SET', serving, new)
redis.call('PUBLISH', channel, empty)
return 1
"""

# Deletes the state of a generation that does not serve, and its record, if it is said to have one.
# Returns 1 if it did.
PRUNE = """
if (redis.call('GET', KEYS[1]) or ARGV[2]) == ARGV[1] then return 0 end
if ARGV[3] == '' and redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('UNLINK', unpack(KEYS, 3))
return 1
"""

# Deletes keys of a pruned generation, unless another one of its name was begun. Returns their number.
CLEAR = """
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then return -1 end
if (redis.call('GET', KEYS[1]) or ARGV[2]) == ARGV[1] then return -1 end
return redis.call('UNLINK', unpack(KEYS, 3))
"""
EMPTY_NOTIFICATION = bytes([0x92, 0x90, 0x90])
"""msgpack of [[], []]: all readers of a projection look again."""


@dataclass(frozen=True, slots=True)
class GenerationState:
    """A generation, and how far its build is."""

    view: View
    record: GenerationRecord | None
    """None for the one that serves."""
    ready: str
    """The incarnation of the database that it follows, once it has caught up; else empty."""
    checkpoints: Sequence[tuple[str, int]]
    """The epoch and the sequence of each partition."""
    code: str
    """The version of the code that began its build; empty if it is not known."""
    parked: int
    stored: bytes = b""
    """The record, as it is stored."""

    @property
    def serves(self) -> bool:
        return self.record is None

    def compute_progress(self, epoch: str, last_sequence: int) -> float:
        """Return the share of a stream that its build has read, 0 to 1."""
        if self.ready:
            return 1.0
        read = sum(sequence for each, sequence in self.checkpoints if each == epoch)
        return min(1.0, read / (last_sequence * streams.PARTITIONS)) if last_sequence else 0.0


class GenerationStore:
    """The generations of one projection.

    Args:
        redis: the connection.
        view: of the projection, in any generation.
    """

    def __init__(self, redis: Redis, view: View) -> None:
        self._redis = redis
        self._view = view

    async def read(self) -> list[GenerationState]:
        """Return all generations; first the one that serves, then the latest begun.

        Raises:
            GenerationsUnreadable: the record of one cannot be read.
        """
        value: Any = await self._redis.get(self._view.serving)
        records: Any = await self._redis.hgetall(self._view.generations)
        serving = decode_serving(value)
        found = {name.decode(): decode_record(each) for name, each in records.items()}
        found.pop(serving, None)
        latest = sorted(found.items(), key=lambda each: -each[1].begun)
        return [
            await self._read_state(self._view.at(name), record, records.get(name.encode(), b""))
            for name, record in [(serving, None), *latest]
        ]

    async def _read_state(
        self, view: View, record: GenerationRecord | None, stored: bytes
    ) -> GenerationState:
        pipeline: Any = self._redis.pipeline(transaction=False)
        pipeline.get(view.ready).hvals(view.checkpoints).get(view.code).hlen(view.parked)
        ready, checkpoints, code, parked = await pipeline.execute()
        return GenerationState(
            view,
            record,
            (ready or b"").decode(errors="replace"),
            [parse_checkpoint(each) for each in checkpoints],
            (code or b"").decode(errors="replace"),
            parked,
            stored,
        )

    async def begin(self, known: Sequence[GenerationState], rate: float | None) -> str | None:
        """Let projectors build a new generation; return its name, None if the generations have changed."""
        name = next_generation(state.view.generation for state in known)
        record = encode_record(GenerationRecord(int(time() * 1000), rate=rate, change=uuid4().hex))
        others = sum(not state.serves for state in known)
        begun = await self._run(BEGIN, [self._view.generations], [name, record, others])
        return name if begun else None

    async def replace(self, known: GenerationState, record: GenerationRecord) -> bool:
        """Replace the record of a generation; return False if it has changed."""
        arguments = [known.view.generation, known.stored, encode_record(record)]
        return bool(await self._run(REPLACE, [self._view.generations], arguments))

    async def switch(
        self, old: GenerationState, new: GenerationState, *, rolls_back: bool
    ) -> Literal["done", "changed", "not ready"]:
        """Let another generation serve, if the first one does and the other one is built."""
        at, change = int(time() * 1000), uuid4().hex
        record = GenerationRecord(served_until=at, rolled_back=rolls_back, change=change)
        keys = [old.view.serving, old.view.generations, old.view.ready, new.view.ready]
        names = [old.view.generation, new.view.generation, encode_record(record), GENERATION]
        arguments = [*names, old.view.change_channel, EMPTY_NOTIFICATION]
        reply: int = await self._run(SWITCH, keys, arguments)
        return "done" if reply == 1 else "not ready" if reply == -1 else "changed"

    async def prune(self, view: View, *, has_record: bool = True) -> int | None:
        """Delete a generation, or what is left of one whose deletion ended early.

        Args:
            view: the view in the generation.
            has_record: whether it has a record.

        Returns:
            The number of keys beside its state; None if it serves, or was begun meanwhile.
        """
        keys = [view.serving, view.generations]
        arguments = [view.generation, GENERATION, "1" if has_record else ""]
        if not await self._run(PRUNE, [*keys, *view.state_keys], arguments):
            return None
        deleted = 0
        async for page in self._scan(view):
            unlinked: int = await self._run(CLEAR, [*keys, *page], [view.generation, GENERATION])
            if unlinked == -1:  # the new build has cleared the rest
                break
            deleted += unlinked
        return deleted

    async def estimate_bytes(self, view: View) -> int:
        """Return about how many bytes of memory a generation takes. Looks at all keys of Redis."""
        total, views = 0, 0
        async for page in self._scan(view):
            pipeline: Any = self._redis.pipeline(transaction=False)
            weights = []
            for key in page:
                is_small = key.startswith((b"view:", b"history:"))
                views += is_small
                if not is_small or views % MEASURED_SHARE == 1:
                    pipeline.memory_usage(key)
                    weights.append(MEASURED_SHARE if is_small else 1)
            sizes = await pipeline.execute() if weights else []
            total += sum((size or 0) * weight for size, weight in zip(sizes, weights, strict=True))
        return total

    async def _scan(self, view: View) -> AsyncIterator[list[bytes]]:
        """Yield the keys of a generation beside its state, in pages."""
        for pattern in view.patterns:
            cursor: Any = -1
            while cursor != 0:
                page: Any
                cursor, page = await self._redis.scan(max(cursor, 0), match=pattern, count=SCAN_PAGE)
                if page:
                    yield page

    async def _run(self, script: str, keys: Sequence[str | bytes], arguments: Sequence[Any]) -> Any:
        return await self._redis.eval(script, len(keys), *keys, *arguments)
