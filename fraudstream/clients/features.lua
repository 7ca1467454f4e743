-- The definitions: what one transaction's features are, from the rows of its customer and terminal (feature_rows.lua).
-- The list of a set's features, made from its file, and feature_calls.lua follow.
--
-- A transaction later than all of its entity (nearly every one) finds the windows in the header, as of the row before it:
-- what has left since is taken off row by row, the transaction is added. A late one is worked out from the rows as of
-- its own time. Parameters: PRIOR_SUM_MINOR, CLEAN_MAX_MINOR, CLEAN_MAX_RATIO, CLEAN_WARM_UP, HOT_RATIO, LATENESS_MS,
-- LABEL_DELAY_MS, MINOR_PER_MAJOR, NONE_DAYS, UNKNOWN_DAYS, NO_RUN_DAYS, DISTINCT_MOST. Amounts are in minor units,
-- times in milliseconds.

local FRAUD, GENUINE = 1, 2 -- 3 is unsure
local DUPLICATE, BEYOND, TRUNCATED = 1, 2, 8 -- of the customer; of the terminal BEYOND and TRUNCATED are doubled
local DAY = 86400000
local BASE = 2 ^ 25

-- ---------------------------------------------------------------- windows: from the rows

-- Adds a sum of squares; the low half stays below LIMB, so that nothing is rounded.
local function add_squares(found, high, low)
  high, low = found.high + high, found.low + low
  if low >= LIMB then
    high, low = high + 1, low - LIMB
  end
  found.high, found.low = high, low
end

-- Adds the amounts of rows from..till - 1 of a part to `found`, from the last one down.
local function add_amounts(found, w, plan, rows, from, till)
  for i = till - 1, from, -1 do
    local at = plan.row * i + 1
    local a = read('<I5', rows, at + plan.amount)
    found.total = found.total + a
    if w.squares then
      add_squares(found, square(a))
    end
    if a > found.most then
      found.most, found.most_t = a, read('<I6', rows, at)
    end
    if a < found.least then
      found.least, found.least_t = a, read('<I6', rows, at)
    end
  end
end

-- The same for the ratios.
local function add_ratios(found, plan, rows, from, till)
  for i = till - 1, from, -1 do
    local at = plan.row * i + 1
    local ratio = read('<f', rows, at + plan.ratio)
    if ratio > found.top then
      found.top, found.top_t = ratio, read('<I6', rows, at)
    end
    if ratio > HOT_RATIO then
      found.first_hot = read('<I6', rows, at)
      found.last_hot = found.last_hot > 0 and found.last_hot or found.first_hot
    end
  end
end

-- Adds a whole part by its sums in the directory; false if its rows must be read, to say when an extreme was.
local function add_sums(e, found, w, part)
  local plan = e.plan
  local at = plan.entry_bytes * (entries_until(e, part.start) - 1) + 1
  local _, _, _, _, sum, high, low, most, least, top = read(plan.entry, e.directory, at)
  if not plan.amount then
    top = sum -- the only one in the entry
  end
  if w.extremes and (most > found.most or least < found.least) then
    return false
  end
  if w.hot and (top > found.top or top > HOT_RATIO) then
    return false
  end
  found.rows = found.rows + part.n
  if w.sums then
    found.total = found.total + sum
  end
  if w.squares then
    add_squares(found, high, low)
  end
  return true
end

-- What a window has of the rows before place k of `part` that are later than `limit`.
local function look_back(e, w, limit, part, k)
  local plan = e.plan
  local found = { rows = 0, total = 0, high = 0, low = 0, most = -1, most_t = 0, least = 2 ^ 40, least_t = 0,
    top = 0, top_t = 0, first_hot = 0, last_hot = 0 }
  while part do
    local whole = part.start > limit and k == part.n and not part.rows
    if not (whole and add_sums(e, found, w, part)) then
      local rows = load_part(e, part).rows
      local from = part.start <= limit and count_until(rows, plan.row, k, limit) or 0
      found.rows = found.rows + k - from
      if w.sums or w.extremes then
        add_amounts(found, w, plan, rows, from, k)
      end
      if w.hot then
        add_ratios(found, plan, rows, from, k)
      end
    end
    if part.start <= limit then
      break
    end
    part = part_before(e, part)
    k = part and part.n
  end
  return found
end

-- Places the window's cursor on the first row later than `newest - length`.
local function place_cursor(e, w)
  local h = e.h
  local limit = h[NEWEST] - w.length
  local part = part_until(e, limit) or (e.directory ~= '' and load_part(e, part_numbered(e, 1))) or e.tail
  local i = count_until(part.rows, e.plan.row, part.n, limit)
  while i == part.n and part ~= e.tail do
    local entry = entries_until(e, part.start) + 1
    part = entry <= #e.directory / e.plan.entry_bytes and load_part(e, part_numbered(e, entry)) or e.tail
    i = 0
  end
  h[w.index] = i
  if e.large then
    h[w.start] = part.start
  end
end

local function place_cursors(e)
  if e.appended then
    settle(e)
  end
  for _, w in ipairs(e.plan.windows) do
    place_cursor(e, w)
  end
end

-- ---------------------------------------------------------------- windows: from the header

-- Takes off what is no longer later than t - length, t later than the newest row.
local function advance(e, w, t)
  local h, plan = e.h, e.plan
  local width, limit = plan.row, t - w.length
  local i, part = h[w.index], e.tail
  if e.large then
    part = part_at(e, h[w.start])
  end
  local rows = part.rows
  local left = 0
  while i < part.n and read('<I6', rows, width * i + 1) <= limit do
    if w.sums then
      local a = read('<I5', rows, width * i + 1 + plan.amount)
      h[w.total] = h[w.total] - a
      if w.squares then
        local high, low = square(a)
        high, low = h[w.high] - high, h[w.low] - low
        if low < 0 then
          high, low = high - 1, low + LIMB
        end
        h[w.high], h[w.low] = high, low
      end
    end
    i, left = i + 1, left + 1
    while i == part.n and part ~= e.tail do
      local entry = entries_until(e, part.start) + 1
      part = entry <= #e.directory / plan.entry_bytes and load_part(e, part_numbered(e, entry)) or e.tail
      i, rows = 0, part.rows
    end
  end
  if left > 0 then
    h[w.index], h[w.rows] = i, h[w.rows] - left
    if e.large then
      h[w.start] = part.start
    end
    if (w.extremes and (h[w.most_t] <= limit or h[w.least_t] <= limit))
      or (w.hot and (h[w.top_t] <= limit or (h[w.first_hot] <= limit and h[w.last_hot] > limit))) then
      local found = look_back(e, w, limit, e.tail, e.tail.n)
      if w.extremes then
        h[w.most], h[w.most_t], h[w.least], h[w.least_t] = found.most, found.most_t, found.least, found.least_t
      end
      if w.hot then
        h[w.top], h[w.top_t], h[w.first_hot], h[w.last_hot] = found.top, found.top_t, found.first_hot, found.last_hot
      end
    elseif w.hot and h[w.last_hot] <= limit then
      h[w.first_hot], h[w.last_hot] = 0, 0
    end
  end
end

-- Adds a row in the window to the header.
local function add(h, w, t, amount, ratio)
  local rows = h[w.rows]
  h[w.rows] = rows + 1
  if w.sums then
    h[w.total] = h[w.total] + amount
  end
  if w.squares then
    local high, low = square(amount)
    high, low = h[w.high] + high, h[w.low] + low
    if low >= LIMB then
      high, low = high + 1, low - LIMB
    end
    h[w.high], h[w.low] = high, low
  end
  if w.extremes then
    if rows == 0 or amount > h[w.most] or (amount == h[w.most] and t > h[w.most_t]) then
      h[w.most], h[w.most_t] = amount, t
    end
    if rows == 0 or amount < h[w.least] or (amount == h[w.least] and t > h[w.least_t]) then
      h[w.least], h[w.least_t] = amount, t
    end
  end
  if w.hot then
    if ratio > h[w.top] or (ratio == h[w.top] and t > h[w.top_t]) then
      h[w.top], h[w.top_t] = ratio, t
    end
    if ratio > HOT_RATIO then
      local first, last = h[w.first_hot], h[w.last_hot]
      h[w.first_hot] = (first == 0 or t < first) and t or first
      h[w.last_hot] = t > last and t or last
    end
  end
end

-- ---------------------------------------------------------------- values

-- The variance times n^2, n * squares - sum^2, rounded once: in limbs of 25 bits.
local function spread(n, total, high, low)
  local q = { low % BASE, floor(low / BASE), high % BASE, floor(high / BASE) % BASE, floor(high / BASE / BASE) }
  local s0, s1, s2 = total % BASE, floor(total / BASE) % BASE, floor(total / BASE / BASE)
  local s = { s0 * s0, 2 * s0 * s1, 2 * s0 * s2 + s1 * s1, 2 * s1 * s2, s2 * s2 }
  local d, carry = {}, 0
  for i = 1, 5 do
    local value = n * q[i] - s[i] + carry
    d[i] = value % BASE
    carry = (value - d[i]) / BASE
  end
  d[6] = carry
  local top = 6
  while top > 2 and d[top] == 0 do
    top = top - 1
  end
  if top == 2 then
    return d[2] * BASE + d[1]
  end
  local rest = d[top - 2] * BASE + (d[top - 3] or 0)
  for i = 1, top - 4 do
    if d[i] > 0 then
      rest = rest + 0.5 -- it is more than that, which is all that rounding must know
      break
    end
  end
  return ((d[top] * BASE + d[top - 1]) * LIMB + rest) * BASE ^ (top - 4)
end

-- The standard deviation of a window's amounts, over the population.
local function deviation(w)
  return math.sqrt(spread(w.count, w.sum, w.now_high, w.now_low) / (w.count * w.count))
end

-- Whole calendar days (UTC) from one time to a later one.
local function days_between(from, t)
  return floor(t / DAY) - floor(from / DAY)
end

-- How many different others stand in the newest rows of the window, `other` included.
local function distinct(e, limit, part, k, other)
  local plan = e.plan
  local seen, n, looked = { [other] = true }, 1, 1
  while part do
    load_part(e, part)
    for i = k - 1, 0, -1 do
      local at = plan.row * i + 1
      if looked == DISTINCT_MOST or read('<I6', part.rows, at) <= limit then
        return n
      end
      looked = looked + 1
      local value = sub(part.rows, at + plan.other, at + plan.other + 7)
      if not seen[value] then
        seen[value], n = true, n + 1
      end
    end
    part = part_before(e, part)
    k = part and part.n
  end
  return n
end

-- The label in force at `now` for (t, digest), and the number of label rows that do not come after (t, digest).
-- `p` is the number of label rows to look at, from the last one down.
local function label_at(s, p, t, digest, now)
  local order
  while p > 0 do
    local at = LABEL_ROW * (p - 1) + 1
    local label_t = read('<I6', s, at)
    order = label_t == t and compare(sub(s, at + 6, at + 13), digest) or label_t - t
    if order <= 0 then
      break
    end
    p = p - 1
  end
  local row = order == 0 and p or 0
  while row > 0 do
    local at = LABEL_ROW * (row - 1) + 1
    local labelled_at, code = read('<I6B', s, at + 14)
    if read('<I6', s, at) ~= t or sub(s, at + 6, at + 13) ~= digest then
      break
    end
    if labelled_at <= now then
      return code, p
    end
    row = row - 1
  end
  return nil, p
end

-- Time of the newest label about a transaction of the entity.
local function newest_label(e)
  if e.large then
    return e.h[e.plan.newest_label]
  end
  local labels = e.tail.labels
  return labels ~= '' and read('<I6', labels, #labels - LABEL_ROW + 1) or 0
end

-- The run at time t: walks back over what is confirmed before place k of `part` and later than `limit`, to the first
-- genuine. What is younger than the label delay counts only if it has a label: parts without labels are passed over.
local function walk_back(e, t, limit, part, k)
  local plan = e.plan
  local width, confirmed = plan.row, t - LABEL_DELAY_MS
  local run, start, genuine = 0, nil, nil
  while part and not genuine do
    local p = part.label_rows or #part.labels / LABEL_ROW
    if p > 0 or part.start <= confirmed then
      load_part(e, part)
      local rows, labels = part.rows, part.labels
      p = #labels / LABEL_ROW
      local until_t = confirmed
      if p > 0 then
        local newest = read('<I6', labels, LABEL_ROW * (p - 1) + 1)
        until_t = newest > until_t and newest or until_t
      end
      for i = count_until(rows, width, k, until_t) - 1, 0, -1 do
        local at = width * i + 1
        local row_t = read('<I6', rows, at)
        if row_t <= limit then
          return run, start, genuine
        end
        local code
        if p > 0 then
          code, p = label_at(labels, p, row_t, sub(rows, at + 6, at + 13), t)
        end
        if code == FRAUD then
          if not plan.flag or byte(rows, at + plan.flag) == 1 then
            run, start = run + 1, row_t
          end
        elseif code == GENUINE or row_t <= confirmed then
          genuine = row_t
          break
        end
      end
    end
    if part.start <= limit then
      break
    end
    part = part_before(e, part)
    k = part and part.n
  end
  return run, start, genuine
end

-- Number of confirmed frauds among the rows before place k of `part`, later than `limit` and up to `last`.
local function count_frauds(e, t, limit, last, part, k)
  local width, frauds = e.plan.row, 0
  while part do
    if (part.label_rows or #part.labels / LABEL_ROW) > 0 and part.start <= last then
      load_part(e, part)
      local rows, labels = part.rows, part.labels
      local p = count_until(labels, LABEL_ROW, #labels / LABEL_ROW, last)
      while p > 0 do
        local label_t, digest = read('<I6c8', labels, LABEL_ROW * (p - 1) + 1)
        if label_t <= limit then
          break
        end
        local code = label_at(labels, p, label_t, digest, t)
        if code == FRAUD then
          local i = position(rows, width, k, label_t, digest)
          while i < k and sub(rows, width * i + 1, width * i + 14) == sub(labels, LABEL_ROW * (p - 1) + 1, LABEL_ROW * (p - 1) + 14) do
            frauds, i = frauds + 1, i + 1
          end
        end
        repeat
          p = p - 1
          local at = LABEL_ROW * (p - 1) + 1
        until p == 0 or read('<I6', labels, at) ~= label_t or sub(labels, at + 6, at + 13) ~= digest
      end
    end
    if part.start <= limit then
      break
    end
    part = part_before(e, part)
    k = part and part.n
  end
  return frauds
end

-- ---------------------------------------------------------------- one transaction of one entity

-- Puts into each window of the plan what a transaction finds there; `in_order`: it is later than all rows and will be
-- added. Rows before place k of `part` come before it.
local function fill_windows(e, t, amount, ratio, in_order, part, k)
  local h, plan = e.h, e.plan
  local floor_t = h[NEWEST] > 0 and h[NEWEST] - plan.retention or 0
  for at = 1, #plan.windows do
    local w = plan.windows[at]
    local limit = t - w.length
    if in_order then
      advance(e, w, t)
      if w.hot then
        w.now_top, w.now_first, w.now_last = h[w.top], h[w.first_hot], h[w.last_hot]
      end
      w.before = h[w.rows]
      add(h, w, t, amount, ratio)
      w.count = h[w.rows]
      if w.sums then
        w.sum = h[w.total]
      end
      if w.squares then
        w.now_high, w.now_low = h[w.high], h[w.low]
      end
      if w.extremes then
        w.max, w.min = h[w.most], h[w.least]
      end
    elseif w.asked then
      limit = limit > floor_t and limit or floor_t
      local found = look_back(e, w, limit, part, k)
      w.before, w.count = found.rows, found.rows + 1
      if w.sums then
        w.sum = found.total + amount
      end
      if w.squares then
        local high, low = square(amount)
        high, low = high + found.high, low + found.low
        w.now_low = low % LIMB
        w.now_high = high + (low - w.now_low) / LIMB
      end
      if w.extremes then
        w.max = found.most > amount and found.most or amount
        w.min = found.least < amount and found.least or amount
      end
      if w.hot then
        w.now_top, w.now_first, w.now_last = found.top, found.first_hot, found.last_hot
      end
    end
  end
end

-- The other values of a plan that the rows before place k of `part` give.
local function fill_others(e, t, in_order, part, k, other)
  local h, plan = e.h, e.plan
  local floor_t = h[NEWEST] > 0 and h[NEWEST] - plan.retention or 0
  if plan.previous then
    local last = part
    local i = k
    while last and i == 0 do
      last = part_before(e, last)
      i = last and last.n
    end
    plan.now_previous = last and read('<I6', load_part(e, last).rows, plan.row * (i - 1) + 1) or -1
    if plan.now_previous <= floor_t then
      plan.now_previous = -1
    end
  end
  for at = 1, #plan.distincts do
    local d = plan.distincts[at]
    local limit = t - d.length
    d.count = distinct(e, limit > floor_t and limit or floor_t, part, k, other)
  end
  for at = 1, #plan.runs do
    local run = plan.runs[at]
    local limit = t - run.length
    local from, i = part, k
    local confirmed, labelled = t - LABEL_DELAY_MS, newest_label(e)
    if in_order and labelled <= confirmed then -- nothing younger than the label delay is confirmed
      from, i = e.large and part_at(e, h[run.cursor.start]) or part, h[run.cursor.index]
    elseif e.large and labelled < t then -- nothing younger than the newest label is
      from = part_until(e, labelled > confirmed and labelled or confirmed)
      i = from and from.n
    end
    run.length_now, run.first, run.genuine = walk_back(e, t, limit > floor_t and limit or floor_t, from, i)
  end
  for at = 1, #plan.shares do
    local share = plan.shares[at]
    local limit = t - share.outer.length
    limit = limit > floor_t and limit or floor_t
    share.rows = share.outer.before - share.inner.before
    share.frauds = share.rows > 0 and count_frauds(e, t, limit, t - share.inner.length, part, k) or 0
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

-- One transaction of one entity: fills the plan's values; stores `row` unless it is nil (a duplicate). Returns flags.
local function apply_entity(e, t, digest, amount, ratio, other, row)
  local h, plan = e.h, e.plan
  local newest = h[NEWEST]
  local in_order = row and t > newest
  if e.appended then
    settle(e)
  end
  local part, k = e.tail, e.tail.n
  if not in_order and newest > 0 then
    part, k = place_of(e, t, digest)
  end
  fill_windows(e, t, amount, ratio, in_order, part, k)
  if plan.others then
    fill_others(e, t, in_order, part, k, other)
  end
  if plan.age then
    local first = h[plan.first]
    first = (first == 0 or t < first) and t or first
    plan.now_first = first
    if row then
      h[plan.first] = first
    end
  end
  local flags = t < newest - LATENESS_MS and TRUNCATED or 0
  if not row then
    return flags
  end
  if in_order then
    local moved = false
    if (t - plan.retention) % plan.cell_ms < t - newest then -- a border of cells lies between
      moved = expire(e, kept_from(plan, t))
    end
    h[NEWEST] = t
    if append_row(e, t, row) or moved then
      place_cursors(e)
    end
    return flags
  end
  if t >= kept_from(plan, newest) then
    for _, w in ipairs(plan.windows) do
      if t > newest - w.length then
        add(h, w, t, amount, ratio)
      end
    end
    insert_row(e, t, digest, row)
    place_cursors(e)
  end
  return flags + (t <= newest - plan.retention and BEYOND or 0)
end

-- The offset of the customer's retained transaction with this digest, or nil. Looked for among the newest MOST_ROWS
-- and, if the customer has more, those of the same event time.
local function first_offset(e, t, digest)
  local plan, h = e.plan, e.h
  local width, oldest = plan.row, h[NEWEST] - plan.retention
  if e.appended then
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
    part = e.large and part_before(e, part)
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

-- One label about a transaction of the entity.
local function apply_label(e, t, digest, labelled_at, code)
  local newest = e.h[NEWEST]
  if newest > 0 and t < kept_from(e.plan, newest) then
    return false
  end
  put_label(e, pack('<I6c8I6B', t, digest, labelled_at, code), t, digest, labelled_at)
  return true
end
