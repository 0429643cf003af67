-- Returns the build's name and the checkpoints of its partitions; none for a key of another type, as for a missing
-- one: a projection without name or checkpoints is built again.
local checkpoints = redis.pcall('HGETALL', KEYS[2])
return {value_of(KEYS[1]), error_of(checkpoints) and {} or checkpoints}
