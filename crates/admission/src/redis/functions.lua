#!lua name=doorbuster

-- The decision core of a sale on Redis: the twin of `core.rs`, `verdict.rs`, `replay.rs` and `stock.rs` beside it. The same commands at the
-- same times give the same verdicts and the same records, byte for byte; a test asks both (`tests/suite/twin.rs`).
--
-- A call reads what it needs, decides in memory, and writes at its very end, so that an error leaves nothing half done. All keys
-- of a sale lie in one slot and are named by the caller:
--
--   1 state      the definition's numbers and the sale's, packed as in STATE
--   2 items      hash: index of the item -> numbers packed as in ITEM
--   3 returned   hash: "item:place" -> a unit on the item's stack of returned ones
--   4 grants     hash: number of the grant -> row packed as in ROW, and its units
--   5 customers  hash: pseudonym -> number of the customer's newest grant
--   6 outbox     list: records that were decided, in order, for the relay
--   7 admitted   run id of the one server process that may decide; written by the rebuilder alone

local STATE = {
  -- from the definition
  'opens_at', 'closes_at', 'hold', 'grace', 'grants_per_pass_max', 'grants_per_customer_max', 'limit_per_customer',
  'settle_after', 'items',
  -- of the sale
  'phase', 'paused', 'opened_at', 'closed_at', 'revealed', 'now', 'epoch', 'next', 'credit', 'grants', 'expires_next',
  'held_grants',
  -- of the outbox: number of its first record, of the first that the chain does not have yet, and how many of those may be
  'outbox_first', 'committed', 'uncommitted_max',
}
local ITEM = { 'limit', 'price', 'fresh', 'total', 'returned', 'held', 'sold', 'withdrawn' }
local ROW = '<c16c12c6I8I8I4I4I2I1'
local ROW_BYTES = 61
local UNIT_BYTES = 8
local NO_GRANT = 4294967295

local PLANNED, OPEN, CLOSED, SETTLED = 0, 1, 2, 3
local HELD, CONFIRMED = 0, 255
local EXPIRED, BY_CUSTOMER, BY_SHOP = 1, 2, 3
local UNITS_PER_ITEM_MAX = 100000000
local WITHDRAWN_PER_RECORD_MAX = 10000

-- Numbers of `domain::Refusal`.
local R = {
  overloaded = 50, not_found = 20, quantity_invalid = 13, key_reused = 60, not_open = 70, closed = 71, paused = 72, pass_expired = 80,
  before_slot = 81, pass_spent = 82, limit_item = 90, limit_sale = 91, grants_exhausted = 92, coupon = 100,
  stock_insufficient = 110, sold_out = 111, hold_ended = 130, order_confirmed = 131, refund_due = 132, phase = 142,
  stock_unavailable = 143,
}

-- Numbers of `domain::RecordKind`.
local K = {
  opened = 3, held = 4, released = 5, confirmed = 6, retaken = 10, stock_changed = 11, paused = 12, resumed = 13,
  credit = 14, closed = 16, revealed = 17, settled = 18,
}

local function numbers(names)
  return '<' .. string.rep('I8', #names)
end

local function unpack_numbers(names, bytes)
  local values, named = { struct.unpack(numbers(names), bytes) }, {}
  for place, name in ipairs(names) do
    named[name] = values[place]
  end
  return named
end

local function pack_numbers(names, named)
  local values = {}
  for place, name in ipairs(names) do
    values[place] = named[name]
  end
  return struct.pack(numbers(names), unpack(values))
end

-- The fence: a process that was started, promoted or emptied since the sale was last rebuilt decides nothing. Its memory may lack what
-- the chain has. This variable belongs to the process, like the library; the key travels with the data.
local run_id

local function is_fenced(keys)
  run_id = run_id or string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  return redis.call('GET', keys[7]) ~= run_id
end

-- What a call works on; nil behind the fence. Nothing is written before `commit`.
local function begin(keys, now)
  local bytes = not is_fenced(keys) and redis.call('GET', keys[1])
  if not bytes then
    return nil
  end
  local call = { keys = keys, state = unpack_numbers(STATE, bytes), items = {}, rows = {}, newest = {}, returned = {}, out = {} }
  -- Chain time never goes back.
  call.state.now = math.max(call.state.now, now)
  return call
end

local function item_of(call, index)
  if call.items[index] == nil then
    local bytes = redis.call('HGET', call.keys[2], index)
    call.items[index] = bytes and unpack_numbers(ITEM, bytes)
  end
  return call.items[index] or nil
end

local function row_of(call, number)
  if call.rows[number] == nil then
    local bytes = redis.call('HGET', call.keys[4], number)
    if bytes then
      local row = {}
      row.customer, row.purchase, row.body, row.pay_by, row.record, row.pass, row.older, row.item, row.status =
        struct.unpack(ROW, bytes)
      row.units = string.sub(bytes, ROW_BYTES + 1)
      row.quantity = #row.units / UNIT_BYTES
      call.rows[number] = row
    else
      call.rows[number] = false
    end
  end
  return call.rows[number] or nil
end

local function newest_of(call, customer)
  if not call.newest[customer] then
    call.newest[customer] = tonumber(redis.call('HGET', call.keys[5], customer)) or NO_GRANT
  end
  return call.newest[customer]
end

local function is_live(row)
  return row.status == HELD or row.status == CONFIRMED
end

local function commit(call)
  local keys = call.keys
  for index, item in pairs(call.items) do
    if item and item.changed then
      redis.call('HSET', keys[2], index, pack_numbers(ITEM, item))
    end
  end
  for place, unit in pairs(call.returned) do
    if unit then
      redis.call('HSET', keys[3], place, unit)
    else
      redis.call('HDEL', keys[3], place)
    end
  end
  for number, row in pairs(call.rows) do
    if row and row.changed then
      local bytes = struct.pack(ROW, row.customer, row.purchase, row.body, row.pay_by, row.record, row.pass, row.older,
        row.item, row.status)
      redis.call('HSET', keys[4], number, bytes .. row.units)
    end
  end
  if call.granted_to then
    redis.call('HSET', keys[5], call.granted_to, call.newest[call.granted_to])
  end
  if #call.out > 0 then
    redis.call('RPUSH', keys[6], unpack(call.out))
  end
  redis.call('SET', keys[1], pack_numbers(STATE, call.state))
end

-- Stock: a counter of fresh units and a stack of returned ones.

local function free(item)
  return item.total - item.fresh + item.returned
end

local function returned_unit(call, index, place)
  local field = index .. ':' .. place
  if call.returned[field] == nil then
    call.returned[field] = redis.call('HGET', call.keys[3], field)
  end
  return call.returned[field]
end

-- The units that the next takings would give, fresh ones first, then the latest returned.
local function peek(call, index, quantity)
  local item, units = item_of(call, index), {}
  local fresh = math.min(quantity, item.total - item.fresh)
  for number = item.fresh, item.fresh + fresh - 1 do
    units[#units + 1] = struct.pack('<I4I4', number, 0)
  end
  for taken = 1, quantity - fresh do
    units[#units + 1] = returned_unit(call, index, item.returned - taken)
  end
  return table.concat(units)
end

-- Takes what `peek` gave.
local function take(call, index, quantity)
  local item = item_of(call, index)
  local fresh = math.min(quantity, item.total - item.fresh)
  item.fresh = item.fresh + fresh
  for _ = 1, quantity - fresh do
    item.returned = item.returned - 1
    call.returned[index .. ':' .. item.returned] = false
  end
  item.changed = true
end

-- Each unit goes back in its next generation (INV-2).
local function give_back(call, index, units)
  local item = item_of(call, index)
  for at = 1, #units, UNIT_BYTES do
    local number, generation = struct.unpack('<I4I4', units, at)
    call.returned[index .. ':' .. item.returned] = struct.pack('<I4I4', number, generation + 1)
    item.returned = item.returned + 1
    item.held = item.held - 1
  end
  item.changed = true
end

local function counts(call)
  local packed = {}
  for index = 0, call.state.items - 1 do
    local item = item_of(call, index)
    packed[#packed + 1] = struct.pack('<I4I4I4I4', free(item), item.held, item.sold, item.withdrawn)
  end
  return table.concat(packed)
end

-- Puts a record into the outbox: time, kind, length of the public part, public part, private part (a commitment and what is sealed).
local function emit(call, kind, public, private)
  call.out[#call.out + 1] = struct.pack('<I8I1I4', call.state.now, kind, #public) .. public .. (private or '')
  call.state.next = call.state.next + 1
end

local function grant_bytes(number, row)
  return struct.pack('<I4', number) .. row.purchase
end

local function end_hold(call, row, status)
  -- Later clock credits are not for it.
  row.pay_by = row.pay_by + call.state.credit
  row.status = status
  row.changed = true
  call.state.held_grants = call.state.held_grants - 1
end

local function release(call, number, row, reason)
  emit(call, K.released, grant_bytes(number, row) .. struct.pack('<I1', reason))
  give_back(call, row.item, row.units)
  end_hold(call, row, reason)
end

local function turn_window(call)
  local state = call.state
  if state.phase == PLANNED and state.now >= state.opens_at then
    emit(call, K.opened, '')
    state.phase, state.opened_at = OPEN, state.now
  end
  if state.phase == OPEN and state.now >= state.closes_at then
    emit(call, K.closed, '')
    state.phase, state.closed_at = CLOSED, state.now
  end
end

-- Verdicts: { what, number of grant or refusal, from when another try makes sense }.

local function changed(number)
  return { 'changed', number, 0 }
end

local function unchanged(number)
  return { 'unchanged', number, 0 }
end

local function refused(refusal, retry_at)
  return { 'refused', refusal, retry_at or 0 }
end

local SALE = { 'sale', 0, 0 }

-- The first reason against a purchase whose key is bound to nothing, stock apart: `verdict::before_stock`.
local function before_stock(state, item, wish, holdings)
  local slot = state.opened_at + wish.slot_offset
  if state.phase == PLANNED then return refused(R.not_open, state.opens_at + wish.slot_offset) end
  if state.phase > OPEN then return refused(R.closed) end
  if state.paused ~= 0 then return refused(R.paused) end
  if wish.pass_expires_at <= state.now then return refused(R.pass_expired) end
  if state.now < slot then return refused(R.before_slot, slot) end
  if holdings.of_pass >= state.grants_per_pass_max then return refused(R.pass_spent) end
  if holdings.live_of_item + wish.quantity > item.limit then return refused(R.limit_item) end
  if holdings.live_of_sale + wish.quantity > state.limit_per_customer then return refused(R.limit_sale) end
  if holdings.grants >= state.grants_per_customer_max then return refused(R.grants_exhausted) end
  if wish.coupon ~= 0 then return refused(R.coupon) end
  return nil
end

local function holdings_of(call, customer, index, pass)
  local holdings = { grants = 0, of_pass = 0, live_of_item = 0, live_of_sale = 0 }
  local number = newest_of(call, customer)
  while number ~= NO_GRANT do
    local row = row_of(call, number)
    holdings.grants = holdings.grants + 1
    if row.pass == pass then holdings.of_pass = holdings.of_pass + 1 end
    if is_live(row) then
      holdings.live_of_sale = holdings.live_of_sale + row.quantity
      if row.item == index then holdings.live_of_item = holdings.live_of_item + row.quantity end
    end
    number = row.older
  end
  return holdings
end

local function purchase(call, wish)
  local state = call.state
  -- The key first: a winner who asks again hears the same, whatever has happened since.
  local number = newest_of(call, wish.customer)
  while number ~= NO_GRANT do
    local row = row_of(call, number)
    if row.purchase == wish.purchase then
      if row.body == string.sub(wish.body_hash, 1, 6) then return unchanged(number) end
      return refused(R.key_reused)
    end
    number = row.older
  end
  -- Whoever is bound already was answered above; a new grant must not run further ahead of the chain.
  if state.next - state.committed >= state.uncommitted_max then return refused(R.overloaded) end
  local item = item_of(call, wish.item)
  if not item then return refused(R.not_found) end
  -- Rows keep the low half of a pass's number.
  local pass = wish.pass % 4294967296
  local against = before_stock(state, item, wish, holdings_of(call, wish.customer, wish.item, pass))
  if against then return against end
  local left = free(item)
  if left == 0 then return refused(R.sold_out) end
  if left < wish.quantity then return refused(R.stock_insufficient) end
  -- The point of no return: every check has passed, from here on the customer holds the units.
  number = state.grants
  local units, pay_by = peek(call, wish.item, wish.quantity), state.now + state.hold
  local public = struct.pack('<I4c12c16I2I8c16c16I8I4I8I8', number, wish.purchase, wish.customer, wish.item,
    item.price * wish.quantity, wish.key_hash, wish.body_hash, wish.pass, wish.slot_offset, wish.coupon, pay_by) .. units
  call.rows[number] = {
    customer = wish.customer, purchase = wish.purchase, body = string.sub(wish.body_hash, 1, 6),
    pay_by = pay_by - state.credit, record = state.next, pass = pass, older = newest_of(call, wish.customer),
    item = wish.item, status = HELD, units = units, quantity = wish.quantity, changed = true,
  }
  emit(call, K.held, public, wish.private)
  take(call, wish.item, wish.quantity)
  item.held = item.held + wish.quantity
  call.newest[wish.customer] = number
  call.granted_to = wish.customer
  state.grants = state.grants + 1
  state.held_grants = state.held_grants + 1
  return changed(number)
end

local function cancel(call, number, customer)
  local row = row_of(call, number)
  if not row or (customer ~= '' and row.customer ~= customer) then return refused(R.not_found) end
  local reason = customer ~= '' and BY_CUSTOMER or BY_SHOP
  if row.status == HELD then
    release(call, number, row, reason)
    return changed(number)
  end
  if row.status == reason then return unchanged(number) end
  return refused(row.status == CONFIRMED and R.order_confirmed or R.hold_ended)
end

local function confirm(call, number)
  local row, state = row_of(call, number), call.state
  if not row then return refused(R.not_found) end
  if row.status == CONFIRMED then return unchanged(number) end
  local item = item_of(call, row.item)
  if row.status == HELD then
    emit(call, K.confirmed, grant_bytes(number, row))
    item.held, item.sold, item.changed = item.held - row.quantity, item.sold + row.quantity, true
    end_hold(call, row, CONFIRMED)
    return changed(number)
  end
  -- Money for a hold that has ended: it takes free units again where the rules allow, else it is to be refunded.
  local holdings = holdings_of(call, row.customer, row.item, 0)
  if state.phase >= SETTLED or holdings.live_of_item + row.quantity > item.limit
    or holdings.live_of_sale + row.quantity > state.limit_per_customer or free(item) < row.quantity then
    return refused(R.refund_due)
  end
  local units = peek(call, row.item, row.quantity)
  emit(call, K.retaken, grant_bytes(number, row) .. units)
  take(call, row.item, row.quantity)
  item.sold = item.sold + row.quantity
  row.units, row.status, row.changed = units, CONFIRMED, true
  return changed(number)
end

local function pause(call, reason)
  local state = call.state
  if state.phase == SETTLED then return refused(R.phase) end
  if state.paused == 0 then
    emit(call, K.paused, struct.pack('<I1', reason))
    state.paused = reason
  end
  return SALE
end

local function resume(call)
  if call.state.paused ~= 0 then
    emit(call, K.resumed, '')
    call.state.paused = 0
  end
  return SALE
end

local function change_stock(call, index, change)
  local item = item_of(call, index)
  if not item then return refused(R.not_found) end
  if call.state.phase == SETTLED then return refused(R.phase) end
  local added, withdrawn = math.max(change, 0), math.max(-change, 0)
  if added > UNITS_PER_ITEM_MAX - item.total or withdrawn > WITHDRAWN_PER_RECORD_MAX then
    return refused(R.quantity_invalid)
  end
  if withdrawn > free(item) then return refused(R.stock_unavailable) end
  if change ~= 0 then
    emit(call, K.stock_changed, struct.pack('<I2I4', index, added) .. peek(call, index, withdrawn))
    take(call, index, withdrawn)
    item.withdrawn = item.withdrawn + withdrawn
    item.total = item.total + added
    item.changed = true
  end
  return SALE
end

-- Time that was lost moves the deadline of every open hold.
local function credit(call, milliseconds)
  emit(call, K.credit, struct.pack('<I8', milliseconds))
  call.state.credit = call.state.credit + milliseconds
  return SALE
end

local function close(call)
  local state = call.state
  if state.phase < CLOSED then
    emit(call, K.closed, '')
    state.phase, state.closed_at = CLOSED, state.now
  end
  return SALE
end

local function settle(call)
  local state = call.state
  if state.phase == SETTLED then return SALE end
  if state.phase ~= CLOSED or state.held_grants > 0 or state.revealed == 0 then return refused(R.phase) end
  emit(call, K.settled, counts(call))
  state.phase = SETTLED
  return SALE
end

local COMMANDS = {
  purchase = function(call, args)
    return purchase(call, {
      customer = args[3], purchase = args[4], item = tonumber(args[5]), quantity = tonumber(args[6]),
      coupon = tonumber(args[7]), pass = tonumber(args[8]), pass_expires_at = tonumber(args[9]),
      slot_offset = tonumber(args[10]), key_hash = args[11], body_hash = args[12], private = args[13],
    })
  end,
  cancel = function(call, args) return cancel(call, tonumber(args[3]), args[4]) end,
  confirm = function(call, args) return confirm(call, tonumber(args[3])) end,
  pause = function(call, args) return pause(call, tonumber(args[3])) end,
  resume = function(call) return resume(call) end,
  stock = function(call, args) return change_stock(call, tonumber(args[3]), tonumber(args[4])) end,
  credit = function(call, args) return credit(call, tonumber(args[3])) end,
  close = function(call) return close(call) end,
  settle = function(call) return settle(call) end,
}

local function fenced()
  return redis.error_reply('FENCED this server has not been admitted to decide; the sale has to be rebuilt from its chain')
end

-- Decides one command: clock in milliseconds, name of the command, its fields. Replies with the verdict and the number of the next record.
local function decide(keys, args)
  local call = begin(keys, tonumber(args[1]))
  if not call then return fenced() end
  turn_window(call)
  local verdict = COMMANDS[args[2]](call, args)
  commit(call)
  return { verdict[1], verdict[2], verdict[3], call.state.next }
end

-- What chain time alone brings: clock, how many holds may expire, the slot secret. Replies with the number of the next record.
local function tick(keys, args)
  local call = begin(keys, tonumber(args[1]))
  if not call then return fenced() end
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
  commit(call)
  return call.state.next
end

-- The chain has all records below `committed`, and all that reads the outbox is done with those below `done`: those go. Replies with
-- what is committed, which never goes back.
local function committed(keys, args)
  local call = begin(keys, 0)
  if not call then return fenced() end
  local state = call.state
  state.committed = math.max(state.committed, math.min(tonumber(args[1]), state.next))
  local done = math.min(tonumber(args[2]), state.committed)
  if done > state.outbox_first then
    redis.call('LTRIM', keys[6], done - state.outbox_first, -1)
    state.outbox_first = done
  end
  commit(call)
  return state.committed
end

redis.register_function('doorbuster_decide', decide)
redis.register_function('doorbuster_tick', tick)
redis.register_function('doorbuster_committed', committed)
