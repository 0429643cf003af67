-- Brings the times of the parked aggregates into agreement with their list, if they differ: earlier releases keep
-- the list alone, and a key may hold another type. A time that nobody knows is 0.
local parked_list, parked_since = unpack(KEYS)
local listed, dated = redis.pcall('HLEN', parked_list), redis.pcall('ZCARD', parked_since)
if error_of(listed) or listed == dated then return 0 end
if error_of(dated) then redis.call('UNLINK', parked_since) end
for _, id in ipairs(redis.call('ZRANGE', parked_since, 0, -1)) do
  if redis.call('HEXISTS', parked_list, id) == 0 then redis.call('ZREM', parked_since, id) end
end
for _, id in ipairs(redis.call('HKEYS', parked_list)) do redis.call('ZADD', parked_since, 'NX', 0, id) end
return 1
