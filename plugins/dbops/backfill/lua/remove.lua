-- Removes one key if it is still the live item that a run wrote, in one step.
--
-- KEYS[1]  the key
-- ARGV     layout (hash | string), version, stamp, name of the version, name of the deleted mark, name of the stamp
-- Returns  1 when it was removed, 0 when not.
local key, layout = KEYS[1], ARGV[1]
if redis.call('TYPE', key)['ok'] ~= layout then return 0 end
local version, deleted, stamp
if layout == 'hash' then
  version, deleted, stamp = unpack(redis.call('HMGET', key, ARGV[4], ARGV[5], ARGV[6]))
else
  local is_json, document = pcall(cjson.decode, redis.call('GET', key))
  if not is_json or type(document) ~= 'table' then return 0 end
  version, deleted, stamp = document[ARGV[4]], document[ARGV[5]], document[ARGV[6]]
end
if deleted or version ~= ARGV[2] or stamp ~= ARGV[3] then return 0 end
return redis.call('DEL', key)
