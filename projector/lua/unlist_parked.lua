-- Removes an aggregate from the list of the parked ones, unless its view is parked.
local view, parked_list, parked_since = unpack(KEYS)
if redis.pcall('HEXISTS', view, 'parked') == 0 then
  redis.call('HDEL', parked_list, ARGV[1])
  redis.pcall('ZREM', parked_since, ARGV[1])
end
