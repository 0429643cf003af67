-- Returns the name of the serving generation, the records of those beside it, and the version of the code that began
-- the build of the one that serves; nothing in the place of a key of another type.
local records = redis.pcall('HGETALL', KEYS[2])
local serving = value_of(KEYS[1]) or ARGV[1]
return {serving, error_of(records) and {} or records, value_of(ARGV[2] .. serving)}
