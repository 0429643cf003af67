-- Writes views that are still at the version and revision that the projector loaded, with everything derived
-- from them; advances the checkpoints if all of them were. The bytes of each view follow the other arguments,
-- and those of its history entries follow its own.
--
-- Returns -1 if another build has begun or a checkpoint is not as expected; else the positions of the views
-- that another projector has changed, and the ids of the views with a full counter.
local name, incarnation, partitions, advances, updates, channel, kept = unpack(ARGV, 1, 7)
local parked_list, conflicts, at = KEYS[5], {}, 8
advances = cmsgpack.unpack(advances)
if redis.call('GET', build) ~= name or not as_expected(advances) then return -1 end
for i, update in ipairs(cmsgpack.unpack(updates)) do
  local key, id, version, revision, fields, parked, history, entry_versions, event_contributions =
    unpack(update, 1, 9)
  local stored = redis.call('HMGET', key, 'version', 'revision', 'contributions', 'counted')
  if (stored[1] or '0') == version and (stored[2] or '0') == revision then
    redis.call('HSET', key, unpack(fields))
    if fields[2] ~= version then
      redis.call('HSET', key, 'data', ARGV[at])
      local contributions, entries, stale, feeds = unpack(update, 10)
      for _, entry in ipairs(entries) do redis.call('ZADD', entry[1], 0, entry[2]) end
      for _, entry in ipairs(stale) do redis.call('ZREM', entry[1], entry[2]) end
      local counted = stored[4] or '[]'
      if contributions ~= counted then
        counted = replace_contributions(id, contributions, counted)
        redis.call('HSET', key, 'contributions', contributions, 'counted', counted)
      end
      record_change(id, feeds)
    end
    for j, entry_version in ipairs(entry_versions) do
      redis.call('HSET', history, entry_version, ARGV[at + j])
    end
    for _, contribution in ipairs(event_contributions) do
      local sum = redis.pcall('HINCRBY', contribution[1], contribution[2], contribution[3])
      if type(sum) == 'table' then full[#full + 1] = id end
    end
    if parked == '' then
      redis.call('HDEL', key, 'parked')
    else
      redis.call('HSET', key, 'parked', parked)
      redis.call('HSET', parked_list, id, parked)
    end
  else
    conflicts[#conflicts + 1] = i
  end
  at = at + 1 + #entry_versions
end
notify(channel, tonumber(kept))
if #conflicts == 0 then advance_checkpoints(advances, incarnation, partitions) end
return {conflicts, full}
