"""How far a projection's views are, kept in Redis beside them: the filling, and progress per partition.

A filling begins with a wipe. While it lasts, the name of the filling says so, which refuses every other
write; any projector may help with it or finish it, and a thawed one that knows an older name changes nothing.
"""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import msgspec
from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from contracts import streams
from contracts.view_layout import View
from projector.ports import Filling, Moves, Superseded

pack = msgspec.msgpack.Encoder().encode

SCAN_PAGE = 1_000
WIPING = "/wiping"
"""The end of a filling's name until the views of the one before are gone."""

READ = """
return {redis.call('GET', KEYS[1]), redis.call('HGETALL', KEYS[2])}
"""

BEGIN = """
local fill, present, as_of, progress, parked = unpack(KEYS)
local expected, new = unpack(ARGV)
if (redis.call('GET', fill) or '') == expected then
  redis.call('DEL', present, as_of, progress, parked)
  redis.call('SET', fill, new)
end
"""

DELETE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
for i = 2, #KEYS do redis.call('UNLINK', KEYS[i]) end
return 0
"""

READY = """
local fill, progress = unpack(KEYS)
local wiping, ready, start, partitions = unpack(ARGV)
if redis.call('GET', fill) ~= wiping then return -1 end
for partition = 0, partitions - 1 do redis.call('HSET', progress, partition, start) end
redis.call('SET', fill, ready)
return 0
"""

# Progress is moved in all partitions or in none, and only from where it is said to be.
PROGRESS = """
local fill, progress, as_of, present = unpack(KEYS)

local function stands(moves)
  for _, move in ipairs(moves) do
    if redis.call('HGET', progress, move[1]) ~= move[2] then return false end
  end
  return true
end

local function advance(moves, incarnation, partitions)
  local held = false
  for _, move in ipairs(moves) do
    local partition, old, new, time = unpack(move)
    if old ~= new then redis.call('HSET', progress, partition, new) end
    if time ~= '' then
      redis.call('HSET', as_of, partition, time)
      held = true
    end
  end
  local all = held and redis.call('HLEN', as_of) == tonumber(partitions)
  if all then redis.call('SET', present, incarnation) end
end
"""

ADVANCE = (
    PROGRESS
    + """
local name, incarnation, partitions, moves = unpack(ARGV)
moves = cmsgpack.unpack(moves)
if redis.call('GET', fill) ~= name or not stands(moves) then return -1 end
advance(moves, incarnation, partitions)
return 0
"""
)


class RedisFilling:
    """The filling of one projection. It remembers the one that it read last, and writes to no other."""

    def __init__(self, redis: Redis, view: View) -> None:
        self._redis = redis
        self._view = view
        self._fill = ""
        self._read = redis.register_script(READ)
        self._begin = redis.register_script(BEGIN)
        self._delete = redis.register_script(DELETE)
        self._ready = redis.register_script(READY)
        self._advance = redis.register_script(ADVANCE)

    async def filling(self) -> Filling | None:
        """Read and return the filling; None where a new one has to be begun."""
        name, flat = await _call(self._read, [self._view.fill, self._view.progress])
        self._fill = (name or b"").decode()
        progress = {int(flat[i]): flat[i + 1].decode() for i in range(0, len(flat), 2)}
        if not self._fill or len(progress) < streams.PARTITIONS:  # none at all while it is being wiped
            return None
        return Filling(self._fill.partition("/")[0], progress)

    async def refill(self, incarnation: str, epoch: str) -> None:
        """Wipe the projection and begin another filling, unless somebody else has begun one meanwhile."""
        view = self._view
        if not (self._fill.startswith(f"{incarnation}/") and self._fill.endswith(WIPING)):
            keys = [view.fill, view.present, view.as_of, view.progress, view.parked]
            new = f"{incarnation}/{uuid4()}{WIPING}"
            await _call(self._begin, keys, [self._fill, new])
            self._fill = new
        try:
            await self._wipe()
            ready = [self._fill, self._fill.removesuffix(WIPING), f"{epoch}/0", streams.PARTITIONS]
            self._fence(await _call(self._ready, [view.fill, view.progress], ready))
        except Superseded:
            pass  # another projector began first, or has wiped faster: what it made is read next

    async def advance(self, moves: Moves, as_of: Mapping[int, int]) -> None:
        """Set partitions' progress from one value to the next, in all of them or in none."""
        self._fence(await _call(self._advance, self._keys, self._progress(moves, as_of)))

    @property
    def _keys(self) -> list[str]:
        """The keys that `PROGRESS` takes."""
        return [self._view.fill, self._view.progress, self._view.as_of, self._view.present]

    def _progress(self, moves: Moves, as_of: Mapping[int, int]) -> list[Any]:
        """Return how progress is to move, as arguments of a script."""
        rows = [
            (str(partition), old, new, str(as_of.get(partition, "")))
            for partition, (old, new) in moves.items()
        ]
        return [self._fill, self._fill.partition("/")[0], streams.PARTITIONS, pack(rows)]

    async def _wipe(self) -> None:
        for pattern in self._view.patterns:
            async for page in self._pages(pattern):
                self._fence(await _call(self._delete, [self._view.fill, *page], [self._fill]))

    async def _pages(self, pattern: str) -> Any:
        cursor = -1
        while cursor != 0:
            cursor, page = await self._redis.scan(max(cursor, 0), match=pattern, count=SCAN_PAGE)
            if page:
                yield page

    def _fence(self, answer: Any) -> Any:
        """Return a script's answer, unless it says that the filling or the progress is another one now."""
        if answer == -1:
            raise Superseded(self._fill)
        return answer


async def _call(script: AsyncScript, keys: Any, args: Any = ()) -> Any:
    return await script(keys=keys, args=args)
