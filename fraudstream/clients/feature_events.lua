-- One transaction or label, applied to the entities it is of. feature_calls.lua follows.

-- The offset of the customer's retained transaction with this digest, or nil. Looked for among the newest MOST_ROWS
-- and, if the customer has more, those of the same event time.
local function look_for(e, t, digest)
  local plan = e.plan
  local width, oldest = plan.row, e[NEWEST] - plan.retention
  if e.fresh_n > 0 then
    settle(e)
  end
  local part, looked = e.tail, 0
  while part and looked < MOST_ROWS do
    local from = load_part(e, part).n - (MOST_ROWS - looked)
    from = from > 0 and from or 0
    local at = find(part.rows, digest, width * from + 1, true)
    while at and at <= width * part.n do
      if at % width == 7 and read('<I6', part.rows, at - 6) > oldest then
        return (read('<I6', part.rows, at + 8))
      end
      at = find(part.rows, digest, at + 1, true)
    end
    looked = looked + part.n
    part = part_before(e, part, oldest)
  end
  if e.large and t > oldest then
    part = part_until(e, t)
    local i = part and position(part.rows, width, part.n, t, digest) or 0
    local at = width * i + 1
    if part and i < part.n and read('<I6', part.rows, at) == t and sub(part.rows, at + 6, at + 13) == digest then
      return (read('<I6', part.rows, at + 14))
    end
  end
end

-- The same; nearly always the digest stands nowhere in the entity's string.
local function first_offset(e, t, digest)
  if e.large or find(e.rows, digest, 1, true) or e.fresh_n > 0 and find(e.fresh, digest, 1, true) then
    return look_for(e, t, digest)
  end
end

-- Where rows before (t, digest) end: a part and a number of its rows.
local function place_of(e, t, digest)
  local part = part_until(e, t)
  if not part then
    return { start = 0, n = 0, rows = '', labels = '' }, 0
  end
  return part, position(part.rows, e.plan.row, part.n, t, digest)
end

-- A transaction that is not later than all of its entity, or not stored (`row` is nil: a duplicate). Returns flags.
local function apply_late(e, t, digest, amount, ratio, other, row, quiet)
  local plan, newest = e.plan, e[NEWEST]
  costly = costly or e.large
  if e.fresh_n > 0 then
    settle(e)
  end
  if not quiet then
    local part, k = e.tail, e.tail.n
    if newest > 0 then
      part, k = place_of(e, t, digest)
    end
    plan.late(e, t, amount, ratio, other, part, k, newest > 0 and newest - plan.retention or 0)
  end
  local flags = t < newest - LATENESS_MS and TRUNCATED or 0
  if not row then
    return flags
  end
  e.dirty = true
  if plan.first and (e[plan.first] == 0 or t < e[plan.first]) then
    e[plan.first] = t
  end
  if t >= kept_from(plan, newest) then
    plan.add(e, t, amount, ratio, newest)
    insert_row(e, t, digest, row)
    place_cursors(e)
  end
  return flags + (t <= newest - plan.retention and BEYOND or 0)
end

-- One transaction of one entity: puts its features into V, unless `quiet`; stores `row` unless it is nil. Returns flags.
local function apply_entity(e, t, digest, amount, ratio, other, row, quiet)
  local plan, newest = e.plan, e[NEWEST]
  if not row or t <= newest then
    return apply_late(e, t, digest, amount, ratio, other, row, quiet)
  end
  if e.fresh_n > 0 and (e.fresh_t <= t - plan.shortest or plan.whole_rows) then
    settle(e)
  end
  if quiet then
    plan.pass(e, t, amount, ratio)
  else
    plan.next(e, t, amount, ratio, other)
  end
  local moved = false
  if (t - plan.retention) % plan.cell_ms < t - newest then -- a border of cells lies between
    moved = expire(e, kept_from(plan, t))
  end
  e[NEWEST], e.dirty = t, true
  if append_row(e, t, row) or moved then
    place_cursors(e)
  end
  return 0
end

-- One transaction: its flags and the offset of the first with its id (or -1); its features are in V, unless `quiet`.
local function apply_one(customer, terminal, t, digest, amount, offset, customer_digest, terminal_digest, quiet)
  local first = customer[ROWS] > 0 and first_offset(customer, t, digest) or nil
  local ratio, unexplained
  if CUSTOMER.clean then
    ratio = amount * (customer[CUSTOMER.clean_n] + 1) / (customer[CUSTOMER.clean_sum] + PRIOR_SUM_MINOR)
  end
  local row
  row, ratio = CUSTOMER.pack_row(t, digest, offset, amount, ratio, nil, terminal_digest)
  if CUSTOMER.clean then
    local n = customer[CUSTOMER.clean_n]
    unexplained = (amount > CLEAN_MAX_MINOR or ratio > CLEAN_MAX_RATIO) and 0 or 1
    if not first and amount <= CLEAN_MAX_MINOR and (n < CLEAN_WARM_UP or ratio <= CLEAN_MAX_RATIO) then
      customer[CUSTOMER.clean_n], customer[CUSTOMER.clean_sum] = n + 1, customer[CUSTOMER.clean_sum] + amount
    end
  end
  local flags = apply_entity(customer, t, digest, amount, ratio, terminal_digest, not first and row or nil, quiet)
  if TERMINAL.used then
    row = not first and TERMINAL.pack_row(t, digest, nil, amount, ratio, unexplained, customer_digest) or nil
    flags = flags + 2 * apply_entity(terminal, t, digest, amount, ratio, customer_digest, row, quiet)
  end
  return flags + (first and DUPLICATE or 0), first or -1
end

-- One label about a transaction of the entity.
local function apply_label(e, t, digest, labelled_at, code)
  if e[NEWEST] == 0 or t >= kept_from(e.plan, e[NEWEST]) then
    put_label(e, pack('<I6c8I6B', t, digest, labelled_at, code), t, digest, labelled_at)
    costly = costly or e.large or #e.labels > LABEL_ROW * MOST_ROWS
    e.dirty = true
  end
end
