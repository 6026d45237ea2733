
-- The functions.

-- Decides commands, one after the other: clock in milliseconds, then for each command how many texts it is, its name, its fields. Replies
-- with the epoch, and for each command what became of it, a number, from when another try makes sense, the number of the next record.
local function decide(keys, args)
  local call, refusal = begin(keys, args[1])
  if not call then return refusal end
  turn_window(call)
  local replies, at = { call.state.epoch }, 2
  while args[at] do
    local count = tonumber(args[at])
    local verdict = COMMANDS[args[at + 1]](call, { unpack(args, at + 2, at + count) })
    replies[#replies + 1] = { verdict[1], verdict[2], verdict[3], call.state.next }
    at = at + 1 + count
  end
  commit(call)
  return replies
end

-- What chain time alone brings: clock, how many holds may expire, the slot secret, whether a digest is due. Replies with the number of
-- the next record. A digest is a place in the chain that whoever chains it fills in.
local function tick(keys, args)
  local call, refusal = begin(keys, args[1])
  if not call then return refusal end
  local state, expired = call.state, 0
  turn_window(call)
  while state.expires_next < state.grants do
    local row = row_of(call, state.expires_next)
    if row.status == HELD then
      local over = row.pay_by + state.credit + state.grace
      if state.now < over or expired == tonumber(args[2]) then break end
      release(call, state.expires_next, row, EXPIRED)
      expired = expired + 1
    end
    state.expires_next = state.expires_next + 1
  end
  if state.phase == CLOSED and state.revealed == 0 then
    emit(call, K.revealed, args[3])
    state.revealed = 1
  end
  if state.phase == CLOSED and state.held_grants == 0 and state.now >= state.closed_at + state.settle_after then
    emit(call, K.settled, counts(call))
    state.phase = SETTLED
  end
  if args[4] == '1' and state.held_grants > 0 then
    emit(call, K.digest, '')
  end
  commit(call)
  return call.state.next
end

-- What this server believes: the number of the next record, how many grants and how many holds there are, and the items' packed numbers.
local function standing(keys)
  local call, refusal = begin(keys)
  if not call then return refusal end
  local state, items = call.state, {}
  for index = 0, state.items - 1 do
    items[#items + 1] = redis.call('HGET', keys[2], index)
  end
  return { state.next, state.grants, state.held_grants, items }
end

-- How far the chain is, and what it does not have yet: how many records at most, the number of the first that the chain does not have.
-- What it has goes from the outbox. Replies with the epoch, the number of the first entry, the number of the next record to be decided,
-- and the entries. What is in the chain never goes back.
local function outbox(keys, args)
  local call, refusal = begin(keys)
  if not call then return refusal end
  local state = call.state
  local committed = math.max(state.committed, math.min(tonumber(args[2]), state.next))
  if committed > state.committed then
    redis.call('LTRIM', keys[6], committed - state.committed, -1)
    state.committed = committed
    commit(call)
  end
  return { state.epoch, committed, state.next, redis.call('LRANGE', keys[6], 0, tonumber(args[1]) - 1) }
end

-- A rebuild, step by step, under an epoch that the chain gave to one process alone. What belongs to an older epoch, or was begun on
-- another server, is refused; so two rebuilds never mix, and a server that was promoted in the middle is not admitted by it.
local function rebuild(keys, args)
  local epoch, step = tonumber(args[1]), args[2]
  local mark = redis.call('GET', keys[7]) or ''
  local own_mark = 'loading:' .. args[1] .. ':' .. own_run_id()
  if step == 'begin' then
    local loading = tonumber(string.match(mark, '^loading:(%d+):')) or 0
    local bytes = redis.call('GET', keys[1])
    local known = bytes and unpack_numbers(STATE, bytes) or { epoch = 0 }
    if math.max(loading, known.epoch) >= epoch then
      return redis.error_reply('STALE a rebuild of a newer epoch has begun')
    end
    -- A repair rests on what was seen here; a decision since would stay behind.
    if args[3] ~= 'all' and known.next ~= tonumber(args[4]) then
      return redis.error_reply('STALE this server has decided more than was seen')
    end
    redis.call('SET', keys[7], own_mark)
    -- The part behind the name says what stays: everything that the chain has, for a repair, or nothing.
    redis.call('UNLINK', keys[3], keys[6])
    if args[3] == 'all' then
      redis.call('UNLINK', keys[1], keys[2], keys[4], keys[5])
    end
    return 0
  end
  if mark ~= own_mark then
    return redis.error_reply('STALE this rebuild is not the one that goes on')
  end
  if step == 'put' then
    redis.call('HSET', keys[tonumber(args[3])], unpack(args, 4))
  elseif step == 'admit' then
    redis.call('SET', keys[1], args[3])
    redis.call('SET', keys[7], own_run_id())
  end
  return 0
end

redis.register_function('doorbuster_decide', decide)
redis.register_function('doorbuster_tick', tick)
-- Without memory left nothing is decided, but what frees memory goes on.
redis.register_function{ function_name = 'doorbuster_outbox', callback = outbox, flags = { 'allow-oom' } }
redis.register_function('doorbuster_rebuild', rebuild)
redis.register_function{ function_name = 'doorbuster_standing', callback = standing, flags = { 'no-writes' } }
