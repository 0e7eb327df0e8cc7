-- Return the time by the server's clock in microseconds, and the topics that events were stored in
-- since the question before the last; nothing in their place where it can't be told any more.
-- KEYS: lists of topics by the time of their newest event.
-- ARGV: 1 the time of the last question ('' for none), 2 most topics, 3 for how long they are kept
-- in the lists, 4 the time of the question before.
local time = redis.call('TIME')
local now = time[1] * 1e6 + time[2]
local since, most, keep = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local found = {}
if not since or since > now or since < now - keep then found = false end -- or the clock went back
for _, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('(%.0f', now - keep))
  if found and #found < most then
    for _, name in ipairs(redis.call('ZRANGEBYSCORE', key, ARGV[4], '+inf', 'LIMIT', 0, most - #found)) do
      found[#found + 1] = name
    end
  end
end
return {string.format('%.0f', now), found}
