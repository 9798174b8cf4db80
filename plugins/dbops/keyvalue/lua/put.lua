-- Writes one key of a store unless the condition of dbops.keyvalue.rules says no, in one step.
--
-- KEYS[1]  the key
-- ARGV     layout (hash | string), condition (absent | newer | unchanged), version, seen version or "", "1" for a tombstone or "0",
--          unix time at which it expires or "", name of the version, name of the deleted mark,
--          then the JSON document (string), or field and value in turn (hash)
-- Returns  1 when it was written, {0, kind, old} when not: kind hash with fields and values in turn, string with the text,
--          other for a key of another type, none when there was nothing.
local key, layout, condition, version, seen = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local ends, expires, version_name, deleted_name = ARGV[5] == '1', ARGV[6], ARGV[7], ARGV[8]

-- Byte by byte: Lua's own < follows the locale of the server, which may pass over '-' and '.'.
local function is_less(a, b)
  for place = 1, math.min(#a, #b) do
    local x, y = string.byte(a, place), string.byte(b, place)
    if x ~= y then return x < y end
  end
  return #a < #b
end

-- What is there: kind, reply, version or nil, whether it is a tombstone.
local function read()
  local kind = redis.call('TYPE', key)['ok']
  if kind == 'none' then return 'none', '', nil, false end
  if kind ~= layout then return 'other', '', nil, false end
  if kind == 'hash' then
    local found = redis.call('HMGET', key, version_name, deleted_name)
    return 'hash', nil, found[1] or nil, found[2] and true or false
  end
  local text = redis.call('GET', key)
  local is_json, document = pcall(cjson.decode, text)
  if not is_json or type(document) ~= 'table' then return 'string', text, nil, false end
  local there = document[version_name]
  return 'string', text, type(there) == 'string' and there or nil, document[deleted_name] ~= nil
end

local kind, text, there, is_tombstone = read()
local is_taken = false
if kind == 'none' then
  is_taken = condition ~= 'unchanged'
elseif there == nil then
  is_taken = false
elseif condition == 'unchanged' then
  is_taken = there == seen and not is_tombstone
elseif condition == 'newer' and string.sub(there, 1, 1) == string.sub(version, 1, 1) then
  is_taken = is_less(there, version) or (there == version and ends and not is_tombstone)
end
if not is_taken then
  if kind == 'hash' then text = redis.call('HGETALL', key) end
  return {0, kind, text}
end

if layout == 'string' then
  redis.call('SET', key, ARGV[9])
else
  -- The key is there at every step: a node whose slot is moving away takes no command on a key that is gone, so DEL would be the last one.
  local stale = {}
  if kind == 'hash' then
    for _, name in ipairs(redis.call('HKEYS', key)) do stale[name] = true end
    for place = 9, #ARGV, 2 do stale[ARGV[place]] = nil end
  end
  for place = 9, #ARGV, 1000 do redis.call('HSET', key, unpack(ARGV, place, math.min(place + 999, #ARGV))) end
  for name in pairs(stale) do redis.call('HDEL', key, name) end
  if kind == 'hash' and expires == '' then redis.call('PERSIST', key) end
end
if expires ~= '' then redis.call('EXPIREAT', key, expires) end
return 1
