-- Replaces a view's key of another type by a hash without the view, which a replay folds again up to `version`: the
-- version that it had, or that of its record in the list of parked ones. Returns -1 if another build has begun.
local build, view, parked_list = unpack(KEYS)
local name, id, version = unpack(ARGV)
if value_of(build) ~= name then return -1 end
local type_of_view = redis.call('TYPE', view).ok
if type_of_view == 'hash' or type_of_view == 'none' then return 0 end
redis.call('UNLINK', view)
local parked = redis.pcall('HGET', parked_list, id)
if parked and not error_of(parked) then
  local readable, record = pcall(cjson.decode, parked)
  if readable and type(record) == 'table' and type(record.version) == 'number' then version = record.version - 1 end
  redis.call('HSET', view, 'parked', parked)
end
redis.call('HSET', view, 'version', version, 'revision', redis.call('TIME')[1]) -- a revision that no cached view has
return 0
