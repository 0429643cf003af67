"""Reports in Redis: a hash of all reports, and a sorted set with the time of each."""

from collections.abc import Awaitable, Callable
from typing import Any

from runtime.process_reports.report import INSTANCE, KEPT, WINDOW
from runtime.process_reports.stored_report import MAX_REPORTS, StoredReport

REPORTS = "process_reports"
TIMES = "process_reports:times"

# Replaces keys of other types, which somebody else has written. Also removes what has not been renewed for
# long, or has a time of the future: the clock was set back.
WRITE = """
local time = redis.call('TIME')
local now, kept = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[3])
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('UNLINK', KEYS[1]) end
if redis.call('TYPE', KEYS[2]).ok ~= 'zset' then redis.call('UNLINK', KEYS[2]) end
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
for _, range in ipairs({{'-inf', now - kept}, {now + 60000, '+inf'}}) do
  for _, instance in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], range[1], range[2])) do
    redis.call('HDEL', KEYS[1], instance)
    redis.call('ZREM', KEYS[2], instance)
  end
end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, kept) end
return 0
"""
# Returns instance, age in milliseconds and report of each, the latest first.
READ = """
local time = redis.call('TIME')
local now, found = time[1] * 1000 + math.floor(time[2] / 1000), {}
local first = now - tonumber(ARGV[1])
local times = redis.call('ZREVRANGEBYSCORE', KEYS[2], '+inf', first, 'WITHSCORES', 'LIMIT', 0, ARGV[2])
for i = 1, #times, 2 do
  local report = redis.call('HGET', KEYS[1], times[i])
  if report then found[#found + 1] = {times[i], now - tonumber(times[i + 1]), report} end
end
return found
"""

Call = Callable[..., Awaitable[Any]]
"""Sends one command to Redis, given its words, and returns the reply or raises the error."""


class RedisReports:
    """Writes the report of this process, and reads those of all.

    Args:
        call: sends a command; `execute_command` of redis-py is such a function.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    async def write(self, report: bytes) -> None:
        await self._call("EVAL", WRITE, 2, REPORTS, TIMES, INSTANCE, report, int(KEPT * 1000))

    async def read(self) -> list[StoredReport]:
        rows = await self._call("EVAL", READ, 2, REPORTS, TIMES, int(WINDOW * 1000), MAX_REPORTS)
        return [
            StoredReport.parse(_decode(instance), age / 1000, _decode(report))
            for instance, age, report in rows
        ]


def _decode(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
