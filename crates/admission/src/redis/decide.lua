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
  call.granted[wish.customer] = true
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
  read_purchase = function(call, fields) return read_purchase(call, fields[1], fields[2]) end,
  read_order = function(call, fields) return read_order(call, tonumber(fields[1]), fields[2]) end,
  read_sale = function() return SALE end,
}
