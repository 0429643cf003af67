-- Returns the build's name and the checkpoints of its partitions.
return {redis.call('GET', KEYS[1]), redis.call('HGETALL', KEYS[2])}
