"""The Lua scripts that a projection's views are loaded, written and followed by, each a batch in one call.

Keys come packed rather than declared, for one primary. Bytes are arguments of their own, since the server's
msgpack knows no binary. Amounts are strings throughout: a number of Lua is a double. What a script may find
and leave is said in runtime/views.py.
"""

LOAD = """
local found = {}
for i, key in ipairs(cmsgpack.unpack(ARGV[1])) do
  found[i] = redis.call('HMGET', key, 'data', 'version', 'revision', 'settled', 'entries', 'stale', 'parked')
end
return found
"""

# What follows a view: its entries in indexes, what it adds to counters, and who is told of it. A counter that
# cannot take an amount, since the sum would leave 64 bits, holds nothing of it: an error in the middle of a
# script would leave the call half done, and end every later session at the same place. What a counter could
# not take is not in `added` either.
_FOLLOWING = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local channel, kept = ARGV[3], tonumber(ARGV[4])
local lost, full, settled, touched, last = {}, {}, {}, {}, {}

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

local function announce(id, sets)
  settled[#settled + 1] = id
  for _, set in ipairs(sets) do
    if not last[set] then
      last[set] = tonumber(redis.call('ZREVRANGE', set, 0, 0, 'WITHSCORES')[2] or 0)
      touched[#touched + 1] = set
    end
    last[set] = last[set] + 1
    redis.call('ZADD', set, last[set], id)
  end
end

local function follow(key, id, version, revision, entries, stale, sets)
  local stored = redis.call('HMGET', key, 'version', 'revision', 'settled', 'amounts', 'added')
  if stored[1] ~= version or stored[2] ~= revision then return false end
  local amounts, added = stored[4] or '[]', stored[5] or '[]'
  for _, entry in ipairs(entries) do redis.call('ZADD', entry[1], 0, entry[2]) end
  for _, entry in ipairs(stale) do redis.call('ZREM', entry[1], entry[2]) end
  if amounts ~= added then redis.call('HSET', key, 'added', count(id, amounts, added)) end
  if stored[3] ~= version then announce(id, sets) end
  redis.call('HSET', key, 'settled', version, 'stale', '[]')
  return true
end

local function tell()
  for _, set in ipairs(touched) do redis.call('ZREMRANGEBYRANK', set, 0, -kept - 1) end
  if #settled > 0 then redis.call('PUBLISH', channel, cmsgpack.pack({settled, touched})) end
end
"""

# The bytes of each view stand behind the other arguments, those of its log entries behind them.
WRITE = (
    _FOLLOWING
    + """
local parked_list, settling, at = KEYS[2], ARGV[5] == '1', 6
for i, update in ipairs(cmsgpack.unpack(ARGV[2])) do
  local key, id, version, revision, fields, parked, log, told, tallied, entries, stale, sets = unpack(update)
  local stored = redis.call('HMGET', key, 'version', 'revision')
  if (stored[1] or '0') == version and (stored[2] or '0') == revision then
    redis.call('HSET', key, unpack(fields))
    if fields[2] ~= version then redis.call('HSET', key, 'data', ARGV[at]) end
    for j, number in ipairs(told) do redis.call('HSET', log, number, ARGV[at + j]) end
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
    if settling then follow(key, id, fields[2], fields[4], entries, stale, sets) end
  else
    lost[#lost + 1] = i
  end
  at = at + 1 + #told
end
tell()
return {lost, full}
"""
)

FOLLOW = (
    _FOLLOWING
    + """
for i, view in ipairs(cmsgpack.unpack(ARGV[2])) do
  if not follow(unpack(view)) then lost[#lost + 1] = i end
end
tell()
return {lost, full}
"""
)

UNLIST = """
local view, parked_list = unpack(KEYS)
if redis.call('HEXISTS', view, 'parked') == 0 then redis.call('HDEL', parked_list, ARGV[1]) end
"""
