-- Drop what has expired of a topic; return how many events, and whether there may be more.
-- KEYS: 1 the topic's meta, 2 its stream, 3 the list of topics.
-- ARGV: 1 the topic, 2 most events, 3 their greatest age in milliseconds ('' for none), 4 how many
-- events to look at.
local head = tonumber(redis.call('HGET', KEYS[1], 'head') or 0)
local from = ARGV[2] == '' and 1 or math.max(1, head - tonumber(ARGV[2]) + 1)
local has_more = 0
if ARGV[3] ~= '' then
  -- What is kept has to stay consecutive: the first young event decides, not each one's own age.
  local time, looks = redis.call('TIME'), tonumber(ARGV[4])
  local since = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[3])
  local page = redis.call('XRANGE', KEYS[2], string.format('%.0f-0', from), '+', 'COUNT', looks)
  local young
  for _, entry in ipairs(page) do
    if tonumber(entry[2][6]) >= since then young = true; break end
    from = tonumber(string.match(entry[1], '^%d+')) + 1
  end
  if not young and #page == looks then has_more = 1 end
end
local dropped = redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f-0', from))
local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
redis.call('ZADD', KEYS[3], oldest and oldest[2][6] or '+inf', ARGV[1])
return {dropped, has_more}
