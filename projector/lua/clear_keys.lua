-- Deletes keys of the previous build. Returns -1 if another build has begun.
if value_of(KEYS[1]) ~= ARGV[1] then return -1 end
for i = 2, #KEYS do redis.call('UNLINK', KEYS[i]) end
return 0
