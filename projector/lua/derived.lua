-- Shared by `write`: counters, and change feeds with their notifications.
--
-- A contribution that would overflow 64 bits is not counted: an error inside a script would leave the call half
-- done and end every later session at the same event. The view's `counted` field omits it as well, and `full`
-- reports the view.
local full, changed, touched, last = {}, {}, {}, {}

local function add(key, counter, amount)
  local sum = redis.pcall('HINCRBY', key, counter, amount)
  if type(sum) == 'table' then return false end
  if sum == 0 then redis.call('HDEL', key, counter) end
  return true
end

local function negate(amount)
  return string.sub(amount, 1, 1) == '-' and string.sub(amount, 2) or '-' .. amount
end

-- Replaces a view's earlier contributions; returns those that the counters now hold.
local function replace_contributions(id, contributions, counted)
  local held, complete = {}, true
  for _, old in ipairs(cjson.decode(counted)) do
    if not add(old[1], old[2], negate(old[3])) then
      held[#held + 1], complete = old, false
    end
  end
  for _, new in ipairs(cjson.decode(contributions)) do
    if add(new[1], new[2], new[3]) then held[#held + 1] = new else complete = false end
  end
  if complete then return contributions end
  full[#full + 1] = id
  return #held == 0 and '[]' or cjson.encode(held)
end

local function record_change(id, feeds)
  changed[#changed + 1] = id
  for _, feed in ipairs(feeds) do
    if not last[feed] then
      last[feed] = tonumber(redis.call('ZREVRANGE', feed, 0, 0, 'WITHSCORES')[2] or 0)
      touched[#touched + 1] = feed
    end
    last[feed] = last[feed] + 1
    redis.call('ZADD', feed, last[feed], id)
  end
end

local function notify(channel, kept)
  for _, feed in ipairs(touched) do redis.call('ZREMRANGEBYRANK', feed, 0, -kept - 1) end
  if #changed > 0 then redis.call('PUBLISH', channel, cmsgpack.pack({changed, touched})) end
end
