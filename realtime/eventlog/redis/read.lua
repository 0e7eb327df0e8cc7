-- Return a topic's epoch, its head, and the events from an id on.
-- KEYS: 1 the topic's meta, 2 its stream. ARGV: 1 the first id, 2 most events, 3 most bytes.
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'head')
local found, start, left, room = {}, ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
while left > 0 do
  local count = math.min(left, 16)
  local page = redis.call('XRANGE', KEYS[2], start, '+', 'COUNT', count)
  for _, entry in ipairs(page) do
    room = room - #entry[2][4] - #(entry[2][8] or '')
    if #found > 0 and room < 0 then return {meta[1], meta[2], found} end
    found[#found + 1] = entry
    start = '(' .. entry[1]
  end
  left = #page < count and 0 or left - count
end
return {meta[1], meta[2], found}
