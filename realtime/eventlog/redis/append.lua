-- Append the events of several calls, each of them whole or not at all; once, however often this
-- comes with the same number. No write fails once the first has not, so nothing is done by halves.
-- KEYS: 1 the writer; then each topic's meta, stream, and lists of topics by their oldest and by
-- their newest event; then publishers' keys.
-- ARGV: 1 JSON; then of each event its type, data, meta ('' for none), and its content's digest.
local given = cjson.decode(ARGV[1])
local before = redis.call('GET', KEYS[1])
if before then
  local number, answer = string.match(before, '^(%d+) (.*)$')
  if tonumber(number) == given.number then return answer end
  if tonumber(number) > given.number then return redis.error_reply('STALE given up by its writer') end
end

local function field(info, name) -- found as it is: a pattern takes longer than what INFO does
  local _, last = string.find(info, name, 1, true)
  return string.sub(info, last + 1, string.find(info, '\r', last, true) - 1)
end

-- Another process of Redis, or a replica that was promoted, may lack what the one before had.
local life = field(redis.call('INFO', 'server'), 'run_id:')
  .. field(redis.call('INFO', 'replication'), 'master_replid:')
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local stamp = string.format('%.0f', time[1] * 1e6 + time[2])
local topics, seen, renewed, results = {}, {}, {}, {}

local function has_lost(topic, known) -- for certain
  return known and known[1] == topic.epoch and topic.head < known[2]
end

local function open(index)
  if topics[index] then return topics[index] end
  local first = 4 * index - 2
  local meta = redis.call('HMGET', KEYS[first], 'epoch', 'head', 'life')
  local topic = {epoch = meta[1], head = tonumber(meta[2] or 0), life = meta[3]}
  if not topic.epoch then -- new, or evicted: what is left of it could not be told apart
    redis.call('DEL', KEYS[first + 1])
    topic.epoch = given.epoch
  else
    local is_lost = has_lost(topic, given.known[index]) and 1 or 0
    if is_lost == 1 or (topic.life ~= life and not given.trust_restart) then
      topic.epoch, topic.is_changed = given.epoch, true
      renewed[#renewed + 1] = {index, is_lost, topic.head}
    end
  end
  topics[index] = topic
  return topic
end

local function first_of(key, topic) -- what came with this key before
  if seen[key] == nil then
    local offset, content = string.match(redis.call('GET', KEYS[key]) or '', '^(%d+) (.*)$')
    local is_known = offset and tonumber(offset) <= topic.head
    seen[key] = is_known and {tonumber(offset), content} or false
  end
  return seen[key]
end

local function refused(call, argument) -- the first event whose key came with another one
  local claimed = {}
  for n, event in ipairs(call) do
    local key = event[2]
    if key > 0 then
      local content, first = ARGV[argument + 4 * n], first_of(key, open(event[1]))
      local known = first and first[2] or claimed[key]
      if known and known ~= content then return n end
      claimed[key] = content
    end
  end
end

local function store(event, argument)
  local topic, key = open(event[1]), event[2]
  if key > 0 and first_of(key, topic) then return -first_of(key, topic)[1] end
  local stream = KEYS[4 * event[1] - 1]
  topic.head, topic.is_changed, topic.has_more = topic.head + 1, true, true
  local fields = {'t', ARGV[argument + 1], 'd', ARGV[argument + 2], 'c', now}
  if ARGV[argument + 3] ~= '' then
    fields[7], fields[8] = 'm', ARGV[argument + 3]
  end
  local id = string.format('%.0f-0', topic.head)
  local most = given.max_events[event[1]]
  if most then
    redis.call('XADD', stream, 'MAXLEN', '~', most, id, unpack(fields))
  else
    redis.call('XADD', stream, id, unpack(fields))
  end
  if key > 0 then
    local content = ARGV[argument + 4]
    redis.call('SET', KEYS[key], string.format('%.0f ', topic.head) .. content, 'PX', given.key_ms)
    seen[key] = {topic.head, content}
  end
  return topic.head
end

local argument = 1
for number, call in ipairs(given.calls) do
  local result = refused(call, argument)
  if not result then
    result = {}
    for n, event in ipairs(call) do result[n] = store(event, argument + 4 * (n - 1)) end
  end
  results[number] = result
  argument = argument + 4 * #call
end

local epochs = {}
for index, name in ipairs(given.topics) do
  local topic, first = topics[index], 4 * index - 2
  epochs[index] = topic and topic.epoch or ''
  if topic and topic.is_changed then
    redis.call('HSET', KEYS[first], 'epoch', topic.epoch, 'head', string.format('%.0f', topic.head),
      'life', life)
  end
  if topic and topic.has_more then
    -- Since when there are events: lower than what is there only where there were none.
    redis.call('ZADD', KEYS[first + 2], 'LT', now, name)
    redis.call('ZADD', KEYS[first + 3], stamp, name)
  end
end
local answer = cjson.encode({epochs = epochs, results = results, renewed = renewed})
redis.call('SET', KEYS[1], string.format('%.0f ', given.number) .. answer, 'PX', given.writer_ms)
return answer
