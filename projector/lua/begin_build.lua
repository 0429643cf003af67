-- Begins a new build, unless another projector has begun one since `expected` was read. Returns -1 if the generation
-- is none any more: it does not serve, and has no record.
local build, ready, code, as_of, checkpoints, parked, parked_since, archived, serving, generations = unpack(KEYS)
local expected, new, generation, first = unpack(ARGV)
if (value_of(serving) or first) ~= generation and redis.pcall('HEXISTS', generations, generation) ~= 1 then return -1 end
if (value_of(build) or '') == expected then
  redis.call('DEL', ready, code, as_of, checkpoints, parked, parked_since, archived)
  redis.call('SET', build, new)
end
return 0
