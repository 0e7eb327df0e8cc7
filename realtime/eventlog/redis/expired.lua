-- Return those of the topics that have expired events.
-- KEYS: 1 the list of topics; then their streams.
-- ARGV: of each topic its name, most events, and their greatest age in milliseconds ('' for none).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = {}
for n = 2, #KEYS do
  local name, most, age = ARGV[3 * n - 5], ARGV[3 * n - 4], ARGV[3 * n - 3]
  local since = age ~= '' and redis.call('ZSCORE', KEYS[1], name)
  local is_old = since and tonumber(since) < now - tonumber(age)
  if is_old or (most ~= '' and redis.call('XLEN', KEYS[n]) > tonumber(most)) then
    found[#found + 1] = name
  end
end
return found
