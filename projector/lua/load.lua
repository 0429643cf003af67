-- Returns the fields of several views.
local views = {}
for i, key in ipairs(cmsgpack.unpack(ARGV[1])) do
  views[i] = redis.call('HMGET', key, 'data', 'version', 'revision', 'entries', 'parked')
end
return views
