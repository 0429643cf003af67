-- Opens a cleared build for writes, every partition at the start of the stream. Returns -1 if another has begun.
local build, checkpoints, code = unpack(KEYS)
local clearing, name, start, partitions, version = unpack(ARGV)
if value_of(build) ~= clearing then return -1 end
for partition = 0, partitions - 1 do redis.call('HSET', checkpoints, partition, start) end
redis.call('SET', code, version)
redis.call('SET', build, name)
return 0
