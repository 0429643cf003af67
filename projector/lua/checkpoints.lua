-- Shared by `advance` and `write`: checkpoints advance in all partitions or in none, each from its expected value.
-- `ready` is set once every partition has a time: only then has the projection caught up with all of the stream.
local build, checkpoints, as_of, ready = unpack(KEYS)

local function as_expected(advances)
  for _, advance in ipairs(advances) do
    if redis.call('HGET', checkpoints, advance[1]) ~= advance[2] then return false end
  end
  return true
end

local function advance_checkpoints(advances, incarnation, partitions)
  local caught_up = false
  for _, advance in ipairs(advances) do
    local partition, old, new, time = unpack(advance)
    if old ~= new then redis.call('HSET', checkpoints, partition, new) end
    if time ~= '' then
      overwrite(time == '0' and 'HSETNX' or 'HSET', as_of, partition, time) -- 0: unknown
      caught_up = true
    end
  end
  if caught_up and redis.call('HLEN', as_of) == tonumber(partitions) then
    redis.call('SET', ready, incarnation)
  end
end
