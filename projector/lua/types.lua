-- Included by other scripts: keys whose type is another than theirs. `redis.call` would end the script half done.

-- Returns the text of an error reply; nil for any other reply.
local function error_of(reply) return type(reply) == 'table' and reply.err or nil end

local function has_other_type(reply)
  local text = error_of(reply)
  return text ~= nil and string.find(text, 'WRONGTYPE', 1, true) ~= nil
end

-- Returns the string under a key; false if there is none.
local function value_of(key)
  local value = redis.pcall('GET', key)
  return not error_of(value) and value
end

-- Executes a write, in place of whatever another type of key held.
local function overwrite(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if has_other_type(reply) then
    redis.call('UNLINK', key)
    reply = nil
  end
  if reply == nil or error_of(reply) then return redis.call(command, key, ...) end
  return reply
end
