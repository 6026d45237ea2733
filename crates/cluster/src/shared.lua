#!lua name=doorbuster_shared_1

-- What the gates of a cluster share: how often each address and customer has asked, what may be used only once, counts, who is a gate, and
-- what they tell each other. Every key expires, and what is lost here makes somebody's limit begin anew, so there is no fence: unlike a
-- sale, none of this is rebuilt. The number in the names is of this text's version: another one has another number, and both can be there
-- at once.
--
-- Each operation has a key of its own; all keys of a call lie in one slot. Times are this server's, in microseconds.

local NEWS_LENGTH_MAX = 1000
local NEWS_MILLISECONDS = 24 * 3600 * 1000
-- A key that has asked for so many permits and is not done gets one more at a time, and so on.
local PERMITS_PER_EXTRA = 16
-- Of a permit: what a number of Lua may lose on the way, so that a whole number is not taken for a little less.
local ROUNDING = 1 / 1024

local function server_clock()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- The Generic Cell Rate Algorithm, as in `table.rs` of the limiter: the key's whole state is its theoretical arrival time, and there is no
-- key once that has passed. Takes rate, burst, how many ask, and how many permits beyond may be given. Replies with how many permits there
-- are, and after how many milliseconds there is another one.
local function take(key, now, rate, burst, asked, extra_max)
  local interval = 1000000 / rate
  local known = redis.call('GET', key)
  local arrival = known and struct.unpack('<d', known) or now
  -- A clock that went back, or a smaller burst than before, keeps nobody out for longer than the burst.
  local ahead = math.min(math.max(arrival - now, 0), burst * interval)
  local conforming = math.floor(burst - ahead / interval + ROUNDING)
  local extra = math.min(extra_max, math.floor(ahead / interval / PERMITS_PER_EXTRA))
  local granted = math.max(math.min(conforming, asked + extra), 0)
  if granted > 0 then
    ahead = ahead + granted * interval
    redis.call('SET', key, struct.pack('<d', now + ahead), 'PX', math.ceil(ahead / 1000))
  end
  local wait = math.ceil((ahead - (burst - 1) * interval) / 1000 - ROUNDING)
  return granted, math.max(wait, 0)
end

-- 1 the first time within so many milliseconds, and 0 from then on.
local function spend(key, _, milliseconds)
  return redis.call('SET', key, 1, 'NX', 'PX', milliseconds) and 1 or 0, 0
end

-- What was spent in vain can be spent again.
local function restore(key)
  return redis.call('DEL', key), 0
end

-- Counts so many more, or only looks, with 0; the count begins anew so many milliseconds after its first.
local function count(key, _, milliseconds, more)
  if more == 0 then return tonumber(redis.call('GET', key) or 0), 0 end
  local counted = redis.call('INCRBY', key, more)
  if counted == more then redis.call('PEXPIRE', key, milliseconds) end
  return counted, 0
end

-- Keeps a member among those who were here within so many milliseconds, or only looks, without one; how many there are.
local function meet(key, now, milliseconds, member)
  local time = math.floor(now / 1000)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', time - milliseconds)
  if member ~= '' then
    redis.call('ZADD', key, time, member)
    redis.call('PEXPIRE', key, milliseconds)
  end
  return redis.call('ZCARD', key), 0
end

-- Tells everybody who reads the news.
local function tell(key, _, text)
  redis.call('XADD', key, 'MAXLEN', '~', NEWS_LENGTH_MAX, '*', 'said', text)
  redis.call('PEXPIRE', key, NEWS_MILLISECONDS)
  return 0, 0
end

-- Each takes what stands behind its name.
local OPERATIONS = {
  take = function(key, now, a, b, c, d) return take(key, now, tonumber(a), tonumber(b), tonumber(c), tonumber(d)) end,
  spend = function(key, now, a) return spend(key, now, tonumber(a)) end,
  restore = restore,
  count = function(key, now, a, b) return count(key, now, tonumber(a), tonumber(b)) end,
  meet = function(key, now, a, b) return meet(key, now, tonumber(a), b) end,
  tell = tell,
  look = function() return 0, 0 end,
}
local FIELDS = 5

-- One operation for each key: its name and four texts, empty where it takes fewer. Replies with two numbers for each.
local function share(keys, args)
  local now, replies = server_clock(), {}
  for place, key in ipairs(keys) do
    local at = (place - 1) * FIELDS
    local operation = OPERATIONS[args[at + 1]]
    replies[2 * place - 1], replies[2 * place] = operation(key, now, unpack(args, at + 2, at + FIELDS))
  end
  return replies
end

redis.register_function('doorbuster_shared_1', share)
