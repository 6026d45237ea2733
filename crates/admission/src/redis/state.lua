#!lua name=doorbuster

-- The decision core of a sale on Redis: the twin of `core.rs`, `verdict.rs`, `replay.rs` and `stock.rs` beside it. The same commands at the
-- same times give the same verdicts and the same records, byte for byte; a test asks both (`tests/suite/twin.rs`).
--
-- A call reads what it needs, decides in memory, and writes at its very end, so that an error leaves nothing half done. All keys
-- of a sale lie in one slot and are named by the caller:
--
--   1 state      the definition's numbers and the sale's, packed as in STATE
--   2 items      hash: index of the item -> numbers packed as in ITEM; "coupon:index" -> as in COUPON; "hash:hash" -> index of the coupon
--   3 returned   hash: "item:place" -> a unit on the item's stack of returned ones
--   4 grants     hash: number of the grant -> row packed as in ROW, and its units
--   5 customers  hash: pseudonym -> number of the customer's newest grant
--   6 payments   hash: number of the grant -> its attempts to pay and what was parked, packed, for those that have some
--   7 outbox     list: records that were decided, in order, for the relay
--   8 admitted   run id of the one server process that may decide, or who is loading the sale; written by a rebuild alone
--
-- Four files make the library: this one keeps the state, `decide.lua` and `pay.lua` have the rules, `serve.lua` the functions.

local STATE = {
  -- from the definition
  'opens_at', 'closes_at', 'hold', 'grace', 'grants_per_pass_max', 'grants_per_customer_max', 'limit_per_customer',
  'settle_after', 'items', 'unpaid_releases_max', 'extension', 'coupons',
  -- of the sale
  'phase', 'paused', 'opened_at', 'closed_at', 'revealed', 'now', 'epoch', 'next', 'credit', 'grants', 'expires_next',
  'held_grants', 'extended_next', 'unsettled',
  -- of the outbox: number of its first record, the first that the chain does not have yet, and how many of those may be
  'committed', 'uncommitted_max',
}
local ITEM = { 'limit', 'price', 'fresh', 'total', 'returned', 'held', 'sold', 'withdrawn' }
local COUPON = { 'percent', 'uses_max', 'used' }
local ROW = '<c16c12c6I8I8I4I4I2I1I1'
local ROW_BYTES = 62
local UNIT_BYTES = 8
local NO_GRANT = 4294967295

local PLANNED, OPEN, CLOSED, SETTLED = 0, 1, 2, 3
local HELD, CONFIRMED = 0, 255
local EXPIRED, BY_CUSTOMER, BY_SHOP = 1, 2, 3
local UNITS_PER_ITEM_MAX = 100000000
local WITHDRAWN_PER_RECORD_MAX = 10000
local ATTEMPTS_MAX, PARKED_MAX = 16, 16

-- Where an attempt to pay is, and what became of money.
local A = { open = 0, ended = 1, paid = 2, refund_due = 3, refunded = 4 }
local CONFIRMS, RETAKES, IS_DUE = 0, 1, 2

-- Numbers of `domain::Refusal`.
local R = {
  overloaded = 50, not_found = 20, quantity_invalid = 13, key_reused = 60, not_open = 70, closed = 71, paused = 72, pass_expired = 80,
  before_slot = 81, pass_spent = 82, limit_item = 90, limit_sale = 91, grants_exhausted = 92, unpaid_releases = 93, coupon = 100,
  stock_insufficient = 110, sold_out = 111, hold_ended = 130, order_confirmed = 131, refund_due = 132, payment_open = 133,
  payments_exhausted = 134, nothing_to_refund = 135, phase = 142, stock_unavailable = 143,
}

-- Numbers of `domain::RecordKind`.
local K = {
  opened = 3, held = 4, released = 5, confirmed = 6, payment_begun = 7, payment_ended = 8, payment_received = 9, retaken = 10,
  stock_changed = 11, paused = 12, resumed = 13, credit = 14, digest = 15, closed = 16, revealed = 17, settled = 18,
  refund_ordered = 19, refunded = 20, payment_parked = 21, payment_named = 22,
}

-- How they are packed; made at the first call, since a library that is being loaded has no functions of its own yet.
local function format_of(names)
  names.format = names.format or '<' .. string.rep('I8', #names)
  return names.format
end

local function unpack_numbers(names, bytes)
  local values, named = { struct.unpack(format_of(names), bytes) }, {}
  for place = 1, #names do
    named[names[place]] = values[place]
  end
  return named
end

local function pack_numbers(names, named)
  local values = {}
  for place = 1, #names do
    values[place] = named[names[place]]
  end
  return struct.pack(format_of(names), unpack(values))
end

-- The fence: a process that was started, promoted or emptied since the sale was last rebuilt decides nothing. Its memory may lack what
-- the chain has. This variable belongs to the process, like the library; the key travels with the data.
local run_id

local function own_run_id()
  run_id = run_id or string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  return run_id
end

-- Chain time is this server's clock. The caller's must agree roughly: of two clocks that differ nobody can say here which one is wrong.
local CLOCKS_APART_MAX = 2000

local function chain_clock(callers)
  local time = redis.call('TIME')
  local own = time[1] * 1000 + math.floor(time[2] / 1000)
  return math.abs(own - callers) <= CLOCKS_APART_MAX and own
end

local function fenced()
  return redis.error_reply('FENCED this server has not been admitted to decide; the sale has to be rebuilt from its chain')
end

-- What a call works on, or the error to reply with. Nothing is written before `commit`. A call without a clock decides nothing.
local function begin(keys, clock)
  if redis.call('GET', keys[8]) ~= own_run_id() then return nil, fenced() end
  local bytes = redis.call('GET', keys[1])
  if not bytes then return nil, fenced() end
  local call = {
    keys = keys, state = unpack_numbers(STATE, bytes), items = {}, coupons = {}, rows = {}, newest = {}, granted = {}, returned = {},
    payments = {}, out = {},
  }
  if clock then
    local now = chain_clock(tonumber(clock))
    if not now then return nil, redis.error_reply('CLOCK the clocks of this server and of the caller are seconds apart') end
    -- Chain time never goes back.
    call.state.now = math.max(call.state.now, now)
  end
  return call
end

local function item_of(call, index)
  if call.items[index] == nil then
    local bytes = redis.call('HGET', call.keys[2], index)
    call.items[index] = bytes and unpack_numbers(ITEM, bytes)
  end
  return call.items[index] or nil
end

local function coupon_of(call, index)
  if not call.coupons[index] then
    call.coupons[index] = unpack_numbers(COUPON, redis.call('HGET', call.keys[2], 'coupon:' .. index))
  end
  return call.coupons[index]
end

-- The index of the coupon of that hash, if the sale has it.
local function coupon_index(call, hash)
  return tonumber(call.state.coupons > 0 and redis.call('HGET', call.keys[2], 'hash:' .. string.format('%.0f', hash)) or nil)
end

-- The attempts to pay of a grant, from 1, which of them have a name (1 or 0), and the evidence that was parked; empty where there are none.
local function payments_of(call, number)
  if not call.payments[number] then
    local bytes, payments = redis.call('HGET', call.keys[6], number), { attempts = {}, named = {}, parked = {} }
    if bytes then
      local count = string.byte(bytes)
      for place = 1, count do
        payments.attempts[place], payments.named[place] = string.byte(bytes, 1 + place), string.byte(bytes, 1 + count + place)
      end
      for at = 2 * count + 2, #bytes, 8 do
        payments.parked[#payments.parked + 1] = struct.unpack('<I8', bytes, at)
      end
    end
    call.payments[number] = payments
  end
  return call.payments[number]
end

local function pack_payments(payments)
  local packed = { string.char(#payments.attempts) }
  for place = 1, #payments.attempts do
    packed[#packed + 1] = string.char(payments.attempts[place])
  end
  for place = 1, #payments.attempts do
    packed[#packed + 1] = string.char(payments.named[place] or 0)
  end
  for place = 1, #payments.parked do
    packed[#packed + 1] = struct.pack('<I8', payments.parked[place])
  end
  return table.concat(packed)
end

local function row_of(call, number)
  if call.rows[number] == nil then
    local bytes = redis.call('HGET', call.keys[4], number)
    if bytes then
      local row = {}
      row.customer, row.purchase, row.body, row.pay_by, row.record, row.pass, row.older, row.item, row.status,
        row.coupon = struct.unpack(ROW, bytes)
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
        row.item, row.status, row.coupon)
      redis.call('HSET', keys[4], number, bytes .. row.units)
    end
  end
  for index, coupon in pairs(call.coupons) do
    if coupon.changed then
      redis.call('HSET', keys[2], 'coupon:' .. index, pack_numbers(COUPON, coupon))
    end
  end
  for number, payments in pairs(call.payments) do
    if payments.changed then
      redis.call('HSET', keys[6], number, pack_payments(payments))
    end
  end
  for customer in pairs(call.granted) do
    redis.call('HSET', keys[5], customer, call.newest[customer])
  end
  if #call.out > 0 then
    redis.call('RPUSH', keys[7], unpack(call.out))
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

-- One order more, or one less, uses the coupon of a grant, if it has one.
local function use_coupon(call, row, change)
  if row.coupon > 0 then
    local coupon = coupon_of(call, row.coupon - 1)
    coupon.used, coupon.changed = coupon.used + change, true
  end
end

local function release(call, number, row, reason)
  emit(call, K.released, grant_bytes(number, row) .. struct.pack('<I1', reason))
  give_back(call, row.item, row.units)
  use_coupon(call, row, -1)
  end_hold(call, row, reason)
end

local function is_over(call, row)
  return call.state.now >= row.pay_by + call.state.credit + call.state.grace
end

local function has_open_attempt(call, number)
  for _, status in ipairs(payments_of(call, number).attempts) do
    if status == A.open then return true end
  end
  return false
end

-- No unit is in a hold, and no money is under way.
local function is_at_rest(state)
  return state.held_grants == 0 and state.unsettled == 0
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

