-- Replaces views by tombstones, each if it is still at the version and revision that housekeeping has read.
-- Counters and change feeds stay as they are. A full Redis allows this, because the first write only frees memory.
-- Returns -1 if another build has begun; else the number of views that were archived.
local build, archived_count = unpack(KEYS)
local name, views = unpack(ARGV)
if value_of(build) ~= name then return -1 end
local time, count = redis.call('TIME'), 0
local now = time[1] .. string.format('%03d', math.floor(time[2] / 1000))
for _, view in ipairs(cmsgpack.unpack(views)) do
  local key, history, version, revision, next_revision, kept_entries, removed_entries = unpack(view)
  local stored = redis.pcall('HMGET', key, 'version', 'revision', 'counted', 'parked', 'archived', 'owner')
  if not error_of(stored) and stored[1] == version and stored[2] == revision and not stored[4] and not stored[5] then
    redis.call('UNLINK', key, history)
    redis.call('HSET', key, 'version', version, 'revision', next_revision, 'archived', now, 'entries', kept_entries)
    if stored[3] then redis.call('HSET', key, 'counted', stored[3]) end
    if stored[6] then redis.call('HSET', key, 'owner', stored[6]) end
    for _, entry in ipairs(removed_entries) do redis.pcall('ZREM', entry[1], entry[2]) end
    count = count + 1
  end
end
if count > 0 then overwrite('INCRBY', archived_count, count) end
return count
