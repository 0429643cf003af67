-- Advances checkpoints. Returns -1 if another build has begun or a checkpoint is not as expected.
local name, incarnation, partitions, advances = unpack(ARGV)
advances = cmsgpack.unpack(advances)
if value_of(build) ~= name or not as_expected(advances) then return -1 end
advance_checkpoints(advances, incarnation, partitions)
return 0
