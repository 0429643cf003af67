-- Begins a new build, unless another projector has begun one since `expected` was read.
local build, ready, as_of, checkpoints, parked, parked_since, archived = unpack(KEYS)
local expected, new = unpack(ARGV)
if (value_of(build) or '') == expected then
  redis.call('DEL', ready, as_of, checkpoints, parked, parked_since, archived)
  redis.call('SET', build, new)
end
