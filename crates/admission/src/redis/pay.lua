
-- Payments: `payments.rs`. Attempts are numbered from 0 in records and from 1 in tables.

local function attempt_bytes(number, row, attempt)
  return grant_bytes(number, row) .. struct.pack('<I1', attempt)
end

-- Moves an attempt, or begins it.
local function move_attempt(call, number, attempt, to)
  local payments = payments_of(call, number)
  local from = payments.attempts[attempt + 1]
  local function unsettled(status) return (status == A.open or status == A.refund_due) and 1 or 0 end
  call.state.unsettled = call.state.unsettled + unsettled(to) - unsettled(from)
  payments.attempts[attempt + 1], payments.changed = to, true
end

local function begin_payment(call, number, customer)
  local row = row_of(call, number)
  if not row or (customer ~= '' and row.customer ~= customer) then return refused(R.not_found) end
  if row.status == CONFIRMED then return refused(R.order_confirmed) end
  if row.status ~= HELD then return refused(R.hold_ended) end
  if has_open_attempt(call, number) then return unchanged(number) end
  if call.state.now >= row.pay_by + call.state.credit then return refused(R.hold_ended) end
  local attempt = #payments_of(call, number).attempts
  if attempt == ATTEMPTS_MAX then return refused(R.payments_exhausted) end
  emit(call, K.payment_begun, attempt_bytes(number, row, attempt))
  move_attempt(call, number, attempt, A.open)
  return changed(number)
end

local function name_payment(call, number, attempt, reference)
  local row = row_of(call, number)
  local payments = row and payments_of(call, number)
  if not payments or not payments.attempts[attempt + 1] then return refused(R.not_found) end
  if payments.named[attempt + 1] == 1 or call.state.phase == SETTLED then return unchanged(number) end
  emit(call, K.payment_named, attempt_bytes(number, row, attempt) .. reference)
  payments.named[attempt + 1], payments.changed = 1, true
  return changed(number)
end

local function report_payment(call, number, attempt, is_paid)
  local row = row_of(call, number)
  local status = row and payments_of(call, number).attempts[attempt + 1]
  if not status then return refused(R.not_found) end
  if not is_paid then
    if status ~= A.open then return unchanged(number) end
    emit(call, K.payment_ended, attempt_bytes(number, row, attempt))
    move_attempt(call, number, attempt, A.ended)
    if row.status == HELD and is_over(call, row) then release(call, number, row, EXPIRED) end
    return changed(number)
  end
  if status ~= A.open and status ~= A.ended then return unchanged(number) end
  if call.state.phase == SETTLED then return refused(R.phase) end
  local received = attempt_bytes(number, row, attempt)
  if row.status == HELD then
    emit(call, K.payment_received, received .. struct.pack('<I1', CONFIRMS))
    become_sold(call, row)
  elseif row.status ~= CONFIRMED and may_retake(call, row) then
    local units = peek(call, row.item, row.quantity)
    emit(call, K.payment_received, received .. struct.pack('<I1', RETAKES) .. units)
    become_retaken(call, row, units)
  else
    emit(call, K.payment_received, received .. struct.pack('<I1', IS_DUE))
    move_attempt(call, number, attempt, A.refund_due)
    return changed(number)
  end
  move_attempt(call, number, attempt, A.paid)
  return changed(number)
end

-- Fields: number, reason, evidence, amount, currency, reference.
local function park_payment(call, number, fields)
  local row = row_of(call, number)
  if not row then return refused(R.not_found) end
  local payments, evidence = payments_of(call, number), tonumber(fields[3])
  for _, known in ipairs(payments.parked) do
    if known == evidence then return unchanged(number) end
  end
  if #payments.parked >= PARKED_MAX then return unchanged(number) end
  if call.state.phase == SETTLED then return refused(R.phase) end
  emit(call, K.payment_parked, grant_bytes(number, row)
    .. struct.pack('<I1I8I8', tonumber(fields[2]), evidence, tonumber(fields[4])) .. fields[5] .. fields[6])
  payments.parked[#payments.parked + 1], payments.changed = evidence, true
  return changed(number)
end

local function order_refund(call, number)
  local row = row_of(call, number)
  if not row then return refused(R.not_found) end
  local is_back = false
  for place, status in ipairs(payments_of(call, number).attempts) do
    if status == A.paid then
      if call.state.phase == SETTLED then return refused(R.phase) end
      emit(call, K.refund_ordered, attempt_bytes(number, row, place - 1))
      move_attempt(call, number, place - 1, A.refund_due)
      return changed(number)
    end
    is_back = is_back or status == A.refund_due or status == A.refunded
  end
  if is_back then return unchanged(number) end
  return refused(R.nothing_to_refund)
end

local function note_refund(call, number, attempt)
  local row = row_of(call, number)
  local status = row and payments_of(call, number).attempts[attempt + 1]
  if status == A.refunded then return unchanged(number) end
  if status ~= A.refund_due then return refused(R.not_found) end
  emit(call, K.refunded, attempt_bytes(number, row, attempt))
  move_attempt(call, number, attempt, A.refunded)
  return changed(number)
end
