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
local function before_stock(state, item, wish, holdings, coupon_is_good)
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
  if holdings.unpaid_releases >= state.unpaid_releases_max then return refused(R.unpaid_releases) end
  if wish.coupon ~= 0 and not coupon_is_good then return refused(R.coupon) end
  return nil
end

local function holdings_of(call, customer, index, pass)
  local holdings = { grants = 0, of_pass = 0, unpaid_releases = 0, live_of_item = 0, live_of_sale = 0 }
  local number = newest_of(call, customer)
  while number ~= NO_GRANT do
    local row = row_of(call, number)
    holdings.grants = holdings.grants + 1
    if row.pass == pass then holdings.of_pass = holdings.of_pass + 1 end
    if row.status == EXPIRED or row.status == BY_CUSTOMER then holdings.unpaid_releases = holdings.unpaid_releases + 1 end
    if is_live(row) then
      holdings.live_of_sale = holdings.live_of_sale + row.quantity
      if row.item == index then holdings.live_of_item = holdings.live_of_item + row.quantity end
    end
    number = row.older
  end
  return holdings
end

local function coupon_is_free(call, index)
  local coupon = coupon_of(call, index)
  return coupon.used < coupon.uses_max
end

-- What some units cost, less what the coupon takes off; what is left is rounded up.
local function price_of(call, item, quantity, coupon)
  local full = item.price * quantity
  if not coupon then return full end
  local off = full * coupon_of(call, coupon).percent
  return full - (off - off % 100) / 100
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
  local coupon = wish.coupon ~= 0 and coupon_index(call, wish.coupon) or nil
  local coupon_is_good = coupon and coupon_is_free(call, coupon)
  local against = before_stock(state, item, wish, holdings_of(call, wish.customer, wish.item, pass), coupon_is_good)
  if against then return against end
  local left = free(item)
  if left == 0 then return refused(R.sold_out) end
  if left < wish.quantity then return refused(R.stock_insufficient) end
  -- The point of no return: every check has passed, from here on the customer holds the units.
  number = state.grants
  local units, pay_by = peek(call, wish.item, wish.quantity), state.now + state.hold
  local public = struct.pack('<I4c12c16I2I8c16c16I8I4I8I8', number, wish.purchase, wish.customer, wish.item,
    price_of(call, item, wish.quantity, coupon), wish.key_hash, wish.body_hash, wish.pass, wish.slot_offset, wish.coupon, pay_by) .. units
  call.rows[number] = {
    customer = wish.customer, purchase = wish.purchase, body = string.sub(wish.body_hash, 1, 6),
    pay_by = pay_by - state.credit, record = state.next, pass = pass, older = newest_of(call, wish.customer),
    item = wish.item, status = HELD, coupon = coupon and coupon + 1 or 0, units = units, quantity = wish.quantity, changed = true,
  }
  use_coupon(call, call.rows[number], 1)
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
    -- Money may be on its way: whoever asks has the provider end it first.
    if has_open_attempt(call, number) then return refused(R.payment_open) end
    release(call, number, row, reason)
    return changed(number)
  end
  if row.status == reason then return unchanged(number) end
  return refused(row.status == CONFIRMED and R.order_confirmed or R.hold_ended)
end

-- What follows from a hold that is paid, behind its record.
local function become_sold(call, row)
  local item = item_of(call, row.item)
  item.held, item.sold, item.changed = item.held - row.quantity, item.sold + row.quantity, true
  end_hold(call, row, CONFIRMED)
end

-- Money for a hold that has ended takes free units again where the rules allow.
local function may_retake(call, row)
  local state, item = call.state, item_of(call, row.item)
  local holdings = holdings_of(call, row.customer, row.item, 0)
  return state.phase < SETTLED and holdings.live_of_item + row.quantity <= item.limit
    and holdings.live_of_sale + row.quantity <= state.limit_per_customer
    and (row.coupon == 0 or coupon_is_free(call, row.coupon - 1)) and free(item) >= row.quantity
end

-- What follows from units that `peek` gave and a released grant has again, behind its record.
local function become_retaken(call, row, units)
  local item = item_of(call, row.item)
  take(call, row.item, row.quantity)
  item.sold = item.sold + row.quantity
  use_coupon(call, row, 1)
  row.units, row.status, row.changed = units, CONFIRMED, true
end

local function confirm(call, number)
  local row = row_of(call, number)
  if not row then return refused(R.not_found) end
  if row.status == CONFIRMED then return unchanged(number) end
  if row.status == HELD then
    emit(call, K.confirmed, grant_bytes(number, row))
    become_sold(call, row)
    return changed(number)
  end
  if not may_retake(call, row) then return refused(R.refund_due) end
  local units = peek(call, row.item, row.quantity)
  emit(call, K.retaken, grant_bytes(number, row) .. units)
  become_retaken(call, row, units)
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
  -- A hold that only a payment has kept has time again of its own.
  call.state.expires_next = math.min(call.state.expires_next, call.state.extended_next)
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
  if state.phase ~= CLOSED or not is_at_rest(state) or state.revealed == 0 then return refused(R.phase) end
  emit(call, K.settled, counts(call))
  state.phase = SETTLED
  return SALE
end
