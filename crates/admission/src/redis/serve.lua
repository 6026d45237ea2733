
-- Reads: whoever asks learns what was decided before, and waits for the chain to have it.

local function read_purchase(call, customer, purchase)
  local number = newest_of(call, customer)
  while number ~= NO_GRANT do
    local row = row_of(call, number)
    if row.purchase == purchase then return unchanged(number) end
    number = row.older
  end
  return refused(R.not_found)
end

local function read_order(call, number, customer)
  local row = row_of(call, number)
  if not row or (customer ~= '' and row.customer ~= customer) then return refused(R.not_found) end
  return unchanged(number)
end

-- Each takes the fields behind its name.
local COMMANDS = {
  purchase = function(call, fields)
    return purchase(call, {
      customer = fields[1], purchase = fields[2], item = tonumber(fields[3]), quantity = tonumber(fields[4]),
      coupon = tonumber(fields[5]), pass = tonumber(fields[6]), pass_expires_at = tonumber(fields[7]),
      slot_offset = tonumber(fields[8]), key_hash = fields[9], body_hash = fields[10], private = fields[11],
    })
  end,
  cancel = function(call, fields) return cancel(call, tonumber(fields[1]), fields[2]) end,
  confirm = function(call, fields) return confirm(call, tonumber(fields[1])) end,
  pause = function(call, fields) return pause(call, tonumber(fields[1])) end,
  resume = function(call) return resume(call) end,
  stock = function(call, fields) return change_stock(call, tonumber(fields[1]), tonumber(fields[2])) end,
  credit = function(call, fields) return credit(call, tonumber(fields[1])) end,
  close = function(call) return close(call) end,
  settle = function(call) return settle(call) end,
  begin_payment = function(call, fields) return begin_payment(call, tonumber(fields[1]), fields[2]) end,
  name_payment = function(call, fields) return name_payment(call, tonumber(fields[1]), tonumber(fields[2]), fields[3]) end,
  report_payment = function(call, fields)
    return report_payment(call, tonumber(fields[1]), tonumber(fields[2]), fields[3] == '1')
  end,
  park_payment = function(call, fields) return park_payment(call, tonumber(fields[1]), fields) end,
  order_refund = function(call, fields) return order_refund(call, tonumber(fields[1])) end,
  note_refund = function(call, fields) return note_refund(call, tonumber(fields[1]), tonumber(fields[2])) end,
  read_purchase = function(call, fields) return read_purchase(call, fields[1], fields[2]) end,
  read_order = function(call, fields) return read_order(call, tonumber(fields[1]), fields[2]) end,
  read_sale = function() return SALE end,
}

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
      if not is_over(call, row) or expired == tonumber(args[2]) then break end
      if not has_open_attempt(call, state.expires_next) then
        release(call, state.expires_next, row, EXPIRED)
        expired = expired + 1
      end
    end
    state.expires_next = state.expires_next + 1
  end
  -- Behind that place only a payment under way has kept a hold, and it may for so long.
  while state.extended_next < state.expires_next do
    local row = row_of(call, state.extended_next)
    if row.status == HELD then
      local over = row.pay_by + state.credit + state.grace + state.extension
      if state.now < over or expired == tonumber(args[2]) then break end
      release(call, state.extended_next, row, EXPIRED)
      expired = expired + 1
    end
    state.extended_next = state.extended_next + 1
  end
  if state.phase == CLOSED and state.revealed == 0 then
    emit(call, K.revealed, args[3])
    state.revealed = 1
  end
  if state.phase == CLOSED and is_at_rest(state) and state.now >= state.closed_at + state.settle_after then
    emit(call, K.settled, counts(call))
    state.phase = SETTLED
  end
  if args[4] == '1' and state.held_grants > 0 then
    emit(call, K.digest, '')
  end
  commit(call)
  return call.state.next
end

-- What this server believes: the number of the next record, how many grants and how many holds there are, and the packed numbers of items and
-- coupons.
local function standing(keys)
  local call, refusal = begin(keys)
  if not call then return refusal end
  local state, items = call.state, {}
  for index = 0, state.items - 1 do
    items[#items + 1] = redis.call('HGET', keys[2], index)
  end
  for index = 0, state.coupons - 1 do
    items[#items + 1] = redis.call('HGET', keys[2], 'coupon:' .. index)
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
    redis.call('LTRIM', keys[7], committed - state.committed, -1)
    state.committed = committed
    commit(call)
  end
  return { state.epoch, committed, state.next, redis.call('LRANGE', keys[7], 0, tonumber(args[1]) - 1) }
end

-- A rebuild, step by step, under an epoch that the chain gave to one process alone. What belongs to an older epoch, or was begun on
-- another server, is refused; so two rebuilds never mix, and a server that was promoted in the middle is not admitted by it.
local function rebuild(keys, args)
  local epoch, step = tonumber(args[1]), args[2]
  local mark = redis.call('GET', keys[8]) or ''
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
    redis.call('SET', keys[8], own_mark)
    -- The part behind the name says what stays: everything that the chain has, for a repair, or nothing.
    redis.call('UNLINK', keys[3], keys[7])
    if args[3] == 'all' then
      redis.call('UNLINK', keys[1], keys[2], keys[4], keys[5], keys[6])
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
    redis.call('SET', keys[8], own_run_id())
  end
  return 0
end

redis.register_function('doorbuster_decide', decide)
redis.register_function('doorbuster_tick', tick)
-- Without memory left nothing is decided, but what frees memory goes on.
redis.register_function{ function_name = 'doorbuster_outbox', callback = outbox, flags = { 'allow-oom' } }
redis.register_function('doorbuster_rebuild', rebuild)
redis.register_function{ function_name = 'doorbuster_standing', callback = standing, flags = { 'no-writes' } }
