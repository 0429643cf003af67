-- Included by `write`: what is derived from views, in keys that may not take it.
--
-- A contribution that would overflow 64 bits is not counted, and a key of another type is left as it is: an error
-- inside a script would leave the call half done, and every later session would fail at the same event. The view's
-- `counted` field omits the contribution as well, and `failed_writes` names view and key. Any other error, a full
-- Redis for instance, still ends the script.
local failed_writes, changed_ids, changed_feeds, last_numbers = {}, {}, {}, {}

-- Returns the reply of a command on a key; nil if the key cannot take it.
local function attempt(id, command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if not error_of(reply) then return reply end
  if not (has_other_type(reply) or command == 'HINCRBY' and string.find(reply.err, '^ERR')) then
    redis.call(command, key, ...) -- fails again, and ends the script with its error
  end
  failed_writes[#failed_writes + 1] = {id, key, reply.err}
end

-- Returns what is left of a list of index entries without the views that had a conflict.
local function select_current(positions, arguments, is_conflict)
  local width, current, current_arguments = #arguments / #positions, {}, {}
  for i, position in ipairs(positions) do
    if not is_conflict[position] then
      current[#current + 1] = position
      for j = (i - 1) * width + 1, i * width do current_arguments[#current_arguments + 1] = arguments[j] end
    end
  end
  return current, current_arguments
end

-- Adds or removes index entries (entry_lists.py) of the views that had no conflict.
local function write_entries(command, lists, updates, is_conflict)
  for _, list in ipairs(lists) do
    local key, positions, arguments = unpack(list)
    if next(is_conflict) then positions, arguments = select_current(positions, arguments, is_conflict) end
    if #positions > 0 and not attempt(updates[positions[1]][2], command, key, unpack(arguments)) then
      local error = failed_writes[#failed_writes][3]
      for i = 2, #positions do failed_writes[#failed_writes + 1] = {updates[positions[i]][2], key, error} end
    end
  end
end

local function add(id, key, counter, amount)
  local sum = attempt(id, 'HINCRBY', key, counter, amount)
  if sum == 0 then redis.call('HDEL', key, counter) end
  return sum ~= nil
end

local function negate(amount)
  return string.sub(amount, 1, 1) == '-' and string.sub(amount, 2) or '-' .. amount
end

-- Replaces a view's earlier contributions by the new ones; returns the contributions that the counters now include.
-- A repaired view, which is folded again, has contributed the same before if no record of that can be read.
local function replace_contributions(id, contributions, counted, repairs)
  local now_counted, complete = {}, true
  local readable, previous = true, {}
  if counted and counted ~= '[]' then readable, previous = pcall(cjson.decode, counted) end
  readable = readable and type(previous) == 'table'
  if repairs and not (counted and readable) then return contributions end
  for _, old in ipairs(readable and previous or {}) do -- `diptych verify` reports the counters otherwise
    if not add(id, old[1], old[2], negate(old[3])) then
      now_counted[#now_counted + 1], complete = old, false
    end
  end
  for _, new in ipairs(cjson.decode(contributions)) do
    if add(id, new[1], new[2], new[3]) then now_counted[#now_counted + 1] = new else complete = false end
  end
  if complete then return contributions end
  return #now_counted == 0 and '[]' or cjson.encode(now_counted)
end

local function record_change(id, feeds)
  changed_ids[#changed_ids + 1] = id
  for _, feed in ipairs(feeds) do
    if not last_numbers[feed] then
      local last = attempt(id, 'ZREVRANGE', feed, 0, 0, 'WITHSCORES')
      last_numbers[feed] = last and tonumber(last[2] or 0) or false
      if last then changed_feeds[#changed_feeds + 1] = feed end
    end
    if last_numbers[feed] then
      last_numbers[feed] = last_numbers[feed] + 1
      redis.call('ZADD', feed, last_numbers[feed], id)
    end
  end
end

local function notify(channel, max_feed_size)
  for _, feed in ipairs(changed_feeds) do -- each of its views has a number of its own, from 1
    if last_numbers[feed] > max_feed_size then redis.call('ZREMRANGEBYRANK', feed, 0, -max_feed_size - 1) end
  end
  if #changed_ids > 0 then redis.call('PUBLISH', channel, cmsgpack.pack({changed_ids, changed_feeds})) end
end
