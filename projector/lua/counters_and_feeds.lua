-- Included by `write`: counters, and change feeds with their notifications.
--
-- A contribution that would overflow 64 bits is not counted: an error inside a script would leave the call half
-- done, and every later session would fail at the same event. The view's `counted` field omits the contribution
-- as well, and `views_with_full_counter` names the view.
local views_with_full_counter, changed_ids, changed_feeds, last_numbers = {}, {}, {}, {}

local function add(key, counter, amount)
  local sum = redis.pcall('HINCRBY', key, counter, amount)
  if type(sum) == 'table' then return false end
  if sum == 0 then redis.call('HDEL', key, counter) end
  return true
end

local function negate(amount)
  return string.sub(amount, 1, 1) == '-' and string.sub(amount, 2) or '-' .. amount
end

-- Replaces a view's earlier contributions by the new ones; returns the contributions that the counters now include.
local function replace_contributions(id, contributions, counted)
  local now_counted, complete = {}, true
  local readable, previous = pcall(cjson.decode, counted)
  if not (readable and type(previous) == 'table') then previous = {} end -- `diptych verify` reports the counters
  for _, old in ipairs(previous) do
    if not add(old[1], old[2], negate(old[3])) then
      now_counted[#now_counted + 1], complete = old, false
    end
  end
  for _, new in ipairs(cjson.decode(contributions)) do
    if add(new[1], new[2], new[3]) then now_counted[#now_counted + 1] = new else complete = false end
  end
  if complete then return contributions end
  views_with_full_counter[#views_with_full_counter + 1] = id
  return #now_counted == 0 and '[]' or cjson.encode(now_counted)
end

local function record_change(id, feeds)
  changed_ids[#changed_ids + 1] = id
  for _, feed in ipairs(feeds) do
    if not last_numbers[feed] then
      last_numbers[feed] = tonumber(redis.call('ZREVRANGE', feed, 0, 0, 'WITHSCORES')[2] or 0)
      changed_feeds[#changed_feeds + 1] = feed
    end
    last_numbers[feed] = last_numbers[feed] + 1
    redis.call('ZADD', feed, last_numbers[feed], id)
  end
end

local function notify(channel, max_feed_size)
  for _, feed in ipairs(changed_feeds) do redis.call('ZREMRANGEBYRANK', feed, 0, -max_feed_size - 1) end
  if #changed_ids > 0 then redis.call('PUBLISH', channel, cmsgpack.pack({changed_ids, changed_feeds})) end
end
