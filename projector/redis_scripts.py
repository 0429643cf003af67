"""The Lua scripts that a projection's views are loaded and written by, each a batch in one call.

Redis runs a script alone and keeps its effects whole, on disk and on replicas too: a view, all that is
derived from it and the progress that it stands for are there together, or not at all.

Keys come packed rather than declared, for one primary. Bytes are arguments of their own, since the server's
msgpack knows no binary. Amounts are strings throughout: a number of Lua is a double. What a script may find
and leave is said in contracts/view_layout.py.
"""

from projector.redis_build import PROGRESS

LOAD = """
local found = {}
for i, key in ipairs(cmsgpack.unpack(ARGV[1])) do
  found[i] = redis.call('HMGET', key, 'data', 'version', 'revision', 'entries', 'parked')
end
return found
"""

# A counter that cannot take an amount, since the sum would leave 64 bits, holds nothing of it: an error in
# the middle of a script would leave the call half done, and end every later session at the same place. What
# a counter could not take is not in `added` either.
_DERIVED = """
local full, changed, touched, last = {}, {}, {}, {}

local function takes(total, counter, amount)
  local sum = redis.pcall('HINCRBY', total, counter, amount)
  if type(sum) == 'table' then return false end
  if sum == 0 then redis.call('HDEL', total, counter) end
  return true
end

local function negative(amount)
  return string.sub(amount, 1, 1) == '-' and string.sub(amount, 2) or '-' .. amount
end

local function count(id, amounts, added)
  local held, all = {}, true
  for _, was in ipairs(cjson.decode(added)) do
    if not takes(was[1], was[2], negative(was[3])) then
      held[#held + 1], all = was, false
    end
  end
  for _, is in ipairs(cjson.decode(amounts)) do
    if takes(is[1], is[2], is[3]) then held[#held + 1] = is else all = false end
  end
  if all then return amounts end
  full[#full + 1] = id
  return #held == 0 and '[]' or cjson.encode(held)
end

local function number(id, sets)
  changed[#changed + 1] = id
  for _, set in ipairs(sets) do
    if not last[set] then
      last[set] = tonumber(redis.call('ZREVRANGE', set, 0, 0, 'WITHSCORES')[2] or 0)
      touched[#touched + 1] = set
    end
    last[set] = last[set] + 1
    redis.call('ZADD', set, last[set], id)
  end
end

local function tell(channel, kept)
  for _, set in ipairs(touched) do redis.call('ZREMRANGEBYRANK', set, 0, -kept - 1) end
  if #changed > 0 then redis.call('PUBLISH', channel, cmsgpack.pack({changed, touched})) end
end
"""

# The bytes of each view stand behind the other arguments, those of its log entries behind them.
WRITE = (
    PROGRESS
    + _DERIVED
    + """
local name, incarnation, partitions, moves, updates, channel, kept = unpack(ARGV, 1, 7)
local parked_list, lost, at = KEYS[5], {}, 8
moves = cmsgpack.unpack(moves)
if redis.call('GET', fill) ~= name or not stands(moves) then return -1 end
for i, update in ipairs(cmsgpack.unpack(updates)) do
  local key, id, version, revision, fields, parked, log, told, tallied = unpack(update, 1, 9)
  local stored = redis.call('HMGET', key, 'version', 'revision', 'amounts', 'added')
  if (stored[1] or '0') == version and (stored[2] or '0') == revision then
    redis.call('HSET', key, unpack(fields))
    if fields[2] ~= version then
      redis.call('HSET', key, 'data', ARGV[at])
      local amounts, entries, stale, sets = unpack(update, 10)
      for _, entry in ipairs(entries) do redis.call('ZADD', entry[1], 0, entry[2]) end
      for _, entry in ipairs(stale) do redis.call('ZREM', entry[1], entry[2]) end
      local added = stored[4] or '[]'
      if amounts ~= added then
        redis.call('HSET', key, 'amounts', amounts, 'added', count(id, amounts, added))
      end
      number(id, sets)
    end
    for j, version in ipairs(told) do redis.call('HSET', log, version, ARGV[at + j]) end
    for _, tally in ipairs(tallied) do
      local sum = redis.pcall('HINCRBY', tally[1], tally[2], tally[3])
      if type(sum) == 'table' then full[#full + 1] = id end
    end
    if parked == '' then
      redis.call('HDEL', key, 'parked')
    else
      redis.call('HSET', key, 'parked', parked)
      redis.call('HSET', parked_list, id, parked)
    end
  else
    lost[#lost + 1] = i
  end
  at = at + 1 + #told
end
tell(channel, tonumber(kept))
if #lost == 0 then advance(moves, incarnation, partitions) end
return {lost, full}
"""
)

UNLIST = """
local view, parked_list = unpack(KEYS)
if redis.call('HEXISTS', view, 'parked') == 0 then redis.call('HDEL', parked_list, ARGV[1]) end
"""
