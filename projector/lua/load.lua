-- Returns the fields of several views, or the text of an error where a key is no hash.
local views = {}
for i, key in ipairs(cmsgpack.unpack(ARGV[1])) do
  local fields = redis.pcall('HMGET', key, 'data', 'version', 'revision', 'entries', 'parked', 'archived')
  views[i] = error_of(fields) or fields
end
return views
