-- Removes the entries of a range of versions from the beginning of a view's history. Returns -1 if another build has
-- begun; 0 if the view or the beginning of its history has changed; else 1. A full Redis allows this.
local build, view, history = unpack(KEYS)
local name, from, to = unpack(ARGV)
if value_of(build) ~= name then return -1 end
local stored = redis.pcall('HMGET', view, 'history_from', 'archived', 'parked', 'version')
if error_of(stored) or (stored[1] or '1') ~= from or stored[2] or stored[3] or not stored[4] then return 0 end
for version = tonumber(from), tonumber(to) - 1 do redis.pcall('HDEL', history, version) end
redis.call('HSET', view, 'history_from', to)
return 1
