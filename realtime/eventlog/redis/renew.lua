-- Begin a new epoch of a topic; return its head, or nil where there is nothing to begin.
-- KEYS: 1 the topic's meta, 2 its stream.
-- ARGV: 1 the new epoch; then, where it is new only if the log went back, the epoch and the offset
-- that are known, and the type, data and meta of the event that was there, if that is known.
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'head')
if not meta[1] then return nil end
if ARGV[2] then
  if meta[1] ~= ARGV[2] then return nil end
  local has_lost = tonumber(meta[2]) < tonumber(ARGV[3])
  if not has_lost and ARGV[4] then
    local id = ARGV[3] .. '-0'
    local entry = redis.call('XRANGE', KEYS[2], id, id)[1]
    if entry then
      local fields = entry[2]
      has_lost = fields[2] ~= ARGV[4] or fields[4] ~= ARGV[5] or (fields[8] or '') ~= ARGV[6]
    end
  end
  if not has_lost then return nil end
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
return meta[2]
