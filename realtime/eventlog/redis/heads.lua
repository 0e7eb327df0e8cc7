-- Return each topic's epoch and head. KEYS: the topics' metas.
local found = {}
for index, key in ipairs(KEYS) do found[index] = redis.call('HMGET', key, 'epoch', 'head') end
return found
