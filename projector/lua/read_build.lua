-- Returns the build's name, the checkpoints of its partitions and their times; none for a key of another type, as for
-- a missing one: a projection without name or checkpoints is built again.
local checkpoints, as_of = redis.pcall('HGETALL', KEYS[2]), redis.pcall('HGETALL', KEYS[3])
return {value_of(KEYS[1]), error_of(checkpoints) and {} or checkpoints, error_of(as_of) and {} or as_of}
