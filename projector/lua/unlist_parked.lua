-- Removes an aggregate from the list of the parked ones, unless its view is parked.
local view, parked_list = unpack(KEYS)
if redis.pcall('HEXISTS', view, 'parked') == 0 then redis.call('HDEL', parked_list, ARGV[1]) end
