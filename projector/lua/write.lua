-- Writes each view that is still at the version and revision that the projector loaded, with everything derived
-- from it. Advances the checkpoints if there was no conflict. Behind the nine fixed arguments, ARGV holds for
-- each view its serialised message and then its new serialised history entries.
--
-- Returns -1 if another build has begun or a checkpoint is not as expected; else the positions of the views
-- that another projector has changed, and what could not be written as (view id, key, error) each.
local name, incarnation, partitions, advances, updates, added_entries, removed_entries, channel, max_feed_size =
  unpack(ARGV, 1, 9)
local function number(value) return value and string.match(value, '^%d+$') or '0' end -- anything else is no version
local function extend(fields, name, value) fields[#fields + 1], fields[#fields + 2] = name, value end
local parked_list, archived_count, parked_since = KEYS[5], KEYS[6], KEYS[7]
local conflicts, is_conflict, next_argument = {}, {}, 10
advances = cmsgpack.unpack(advances)
if value_of(build) ~= name or not as_expected(advances) then return -1 end
updates = cmsgpack.unpack(updates)
for i, update in ipairs(updates) do
  local key, id, version, revision, fields, parked, repairs, history, entry_versions, event_contributions =
    unpack(update, 1, 10)
  -- A key of another type is a conflict: the projector loads the view, and restores its hash.
  local stored = redis.pcall('HMGET', key, 'version', 'revision', 'contributions', 'counted', 'archived', 'parked')
  if not error_of(stored) and number(stored[1]) == version and number(stored[2]) == revision then
    local has_view = update[11] ~= nil -- the view itself, and not only its parked record
    if has_view then
      extend(fields, 'data', ARGV[next_argument])
      local contributions, feeds = unpack(update, 11)
      local archived = stored[5]
      if archived or contributions ~= (stored[4] or '[]') then
        local counted = replace_contributions(id, contributions, stored[4], repairs)
        extend(fields, 'contributions', contributions)
        extend(fields, 'counted', counted)
      end
      if archived then overwrite('DECR', archived_count) end
      if not archived or fields[2] ~= version then record_change(id, feeds) end -- a restored view has not changed
    end
    for j, entry_version in ipairs(entry_versions) do
      local entry = ARGV[next_argument + j]
      if repairs then overwrite('HSET', history, entry_version, entry) -- all entries are written
      else attempt(id, 'HSET', history, entry_version, entry) end
    end
    for _, contribution in ipairs(event_contributions) do attempt(id, 'HINCRBY', unpack(contribution)) end
    if parked ~= '' then
      extend(fields, 'parked', parked)
      overwrite('HSET', parked_list, id, parked)
      overwrite('ZADD', parked_since, cjson.decode(parked).stale_since or 0, id)
    elseif stored[6] then
      redis.call('HDEL', key, 'parked')
    end
    redis.call('HSET', key, unpack(fields)) -- one call for all fields: a call costs more than what it writes
    if has_view and repairs then redis.call('HDEL', key, 'archived', 'history_from') end -- its history was written again
  else
    conflicts[#conflicts + 1], is_conflict[i] = i, true
  end
  next_argument = next_argument + 1 + #entry_versions
end
-- After the views: a full Redis refuses the first command that needs memory, and then no removal may precede it.
write_entries('ZREM', cmsgpack.unpack(removed_entries), updates, is_conflict)
write_entries('ZADD', cmsgpack.unpack(added_entries), updates, is_conflict)
notify(channel, tonumber(max_feed_size))
if #conflicts == 0 then advance_checkpoints(advances, incarnation, partitions) end
return {conflicts, failed_writes}
