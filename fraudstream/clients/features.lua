-- What the rows of an entity say: windows, runs of frauds, shares, as of any time. The functions made for the set follow.
--
-- A transaction later than all of its entity (nearly every one) finds the windows in the header, as of the row before it;
-- what is made for the set takes off what has left since, and adds the transaction. A late one is worked out from the
-- rows as of its own time, by `look_back`. Parameters: PRIOR_SUM_MINOR, CLEAN_MAX_MINOR, CLEAN_MAX_RATIO, CLEAN_WARM_UP,
-- HOT_RATIO, LATENESS_MS, LABEL_DELAY_MS, MINOR_PER_MAJOR, NONE_DAYS, UNKNOWN_DAYS, NO_RUN_DAYS, DISTINCT_MOST. Amounts
-- are in minor units, times in milliseconds. Places are given as a part and the number k of its rows before the place.

local FRAUD, GENUINE = 1, 2 -- 3 is unsure
local DUPLICATE, BEYOND, TRUNCATED = 1, 2, 8 -- of the customer; of the terminal BEYOND and TRUNCATED are doubled
local DAY = 86400000
local BASE = 2 ^ 25
local V = {} -- the features of the transaction at hand
local costly = false -- whether something was done since the clock was looked at that may take milliseconds

-- ---------------------------------------------------------------- windows

-- Adds sums of squares; the low half stays below LIMB, so that nothing is rounded.
local function add_squares(high, low, more_high, more_low)
  high, low = high + more_high, low + more_low
  if low >= LIMB then
    return high + 1, low - LIMB
  end
  return high, low
end

-- Takes off a sum of squares.
local function less_squares(high, low, less_high, less_low)
  high, low = high - less_high, low - less_low
  if low < 0 then
    return high - 1, low + LIMB
  end
  return high, low
end

-- Adds the amounts of rows from..till - 1 of a part to `found`, from the last one down.
local function add_amounts(found, w, plan, rows, from, till)
  for i = till - 1, from, -1 do
    local at = plan.row * i + 1
    local a = read('<I5', rows, at + plan.amount)
    found.total = found.total + a
    if w.high then
      found.high, found.low = add_squares(found.high, found.low, square(a))
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
  local _, _, _, _, _, sum, high, low, most, least, top = read(plan.entry, e.directory, at)
  if not plan.amount then
    top = sum -- the only one in the entry
  end
  if w.most and (most > found.most or least < found.least) then
    return false
  end
  if w.top and (top > found.top or top > HOT_RATIO) then
    return false
  end
  found.rows = found.rows + part.n
  if w.total then
    found.total = found.total + sum
  end
  if w.high then
    found.high, found.low = add_squares(found.high, found.low, high, low)
  end
  return true
end

-- What a window has of the rows before a place that are later than `limit`.
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
      if w.total or w.most then
        add_amounts(found, w, plan, rows, from, k)
      end
      if w.top then
        add_ratios(found, plan, rows, from, k)
      end
    end
    part, k = part_before(e, part, limit)
  end
  return found
end

-- The same for all rows, once an extreme has left the window.
local function look_again(e, w, limit)
  if e.fresh_n > 0 then
    settle(e)
  end
  return look_back(e, w, limit, e.tail, e.tail.n)
end

-- Places the window's cursor on the first row later than `newest - length`.
local function place_cursor(e, w)
  local limit = e[NEWEST] - w.length
  local part = part_until(e, limit) or (e.directory ~= '' and load_part(e, part_numbered(e, 1))) or e.tail
  local i = count_until(part.rows, e.plan.row, part.n, limit)
  if i == part.n and part ~= e.tail then
    part, i = part_after(e, part), 0
  end
  e[w.index] = i
  if e.large then
    e[w.start] = part.start
  end
end

local function place_cursors(e)
  if e.fresh_n > 0 then
    settle(e)
  end
  for _, w in ipairs(e.plan.windows) do
    place_cursor(e, w)
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

-- The standard deviation of n amounts, over the population.
local function deviation(n, total, high, low)
  return math.sqrt(spread(n, total, high, low) / (n * n))
end

-- Whole calendar days (UTC) from one time to a later one.
local function days_between(from, t)
  return ((t - t % DAY) - (from - from % DAY)) / DAY
end

-- Time of the row before a place, -1 if it is not later than `limit`.
local function time_before(e, limit, part, k)
  while part and k == 0 do
    part, k = part_before(e, part, limit)
  end
  local t = part and read('<I6', load_part(e, part).rows, e.plan.row * (k - 1) + 1) or -1
  return t > limit and t or -1
end

-- How many different others stand in the newest rows later than `limit` and before a place, `other` included.
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
    part, k = part_before(e, part, limit)
  end
  return n
end

-- ---------------------------------------------------------------- labels

-- The labels of the newest labelled transaction among the first p label rows: how many come before them, its time, its
-- digest, and the code in force at `now` (nil: none yet).
local function labelled(labels, p, now)
  local at = LABEL_ROW * (p - 1) + 1
  local t, digest = read('<I6c8', labels, at)
  local code
  repeat
    local labelled_at, given = read('<I6B', labels, at + 14)
    if not code and labelled_at <= now then
      code = given
    end
    p, at = p - 1, at - LABEL_ROW
  until p == 0 or read('<I6', labels, at) ~= t or sub(labels, at + 6, at + 13) ~= digest
  return p, t, digest, code
end

-- Time of the newest label about a transaction of the entity.
local function newest_label(e)
  if e.large then
    return e[e.plan.newest_label]
  end
  local labels = e.labels
  return labels ~= '' and read('<I6', labels, #labels - LABEL_ROW + 1) or 0
end

-- Number of rows before place k that are of (t, digest), and whether one of them is unexplained.
local function rows_of(plan, rows, k, t, digest)
  local i = position(rows, plan.row, k, t, digest)
  local n, unexplained = 0, 0
  while i < k do
    local at = plan.row * i + 1
    if read('<I6', rows, at) ~= t or sub(rows, at + 6, at + 13) ~= digest then
      break
    end
    if not plan.flag or byte(rows, at + plan.flag) == 1 then
      unexplained = unexplained + 1
    end
    n, i = n + 1, i + 1
  end
  return n, unexplained
end

-- Goes on with a run through a part, from its k-th row down: what is younger than the label delay counts only if it has
-- a label, anything older without a fraud label is genuine. Returns run, start, and the genuine row's time if found.
local function run_in_part(plan, part, k, t, limit, run, start)
  local rows, labels, confirmed = part.rows, part.labels, t - LABEL_DELAY_MS
  local p = #labels / LABEL_ROW
  costly = costly or p > MOST_ROWS
  local label_t, digest, code = 0
  if p > 0 then
    p, label_t, digest, code = labelled(labels, p, t)
  end
  while label_t > confirmed and label_t > limit do
    if code == FRAUD or code == GENUINE then
      local n, unexplained = rows_of(plan, rows, k, label_t, digest)
      if n > 0 and code == GENUINE then
        return run, start, label_t
      elseif unexplained > 0 then
        run, start = run + unexplained, label_t
      end
    end
    label_t = 0
    if p > 0 then
      p, label_t, digest, code = labelled(labels, p, t)
    end
  end
  for i = count_until(rows, plan.row, k, confirmed) - 1, 0, -1 do
    local at = plan.row * i + 1
    local row_t, row_digest = read('<I6c8', rows, at)
    if row_t <= limit then
      return run, start
    end
    while label_t > row_t or (label_t == row_t and compare(digest, row_digest) > 0) do
      label_t = 0
      if p > 0 then
        p, label_t, digest, code = labelled(labels, p, t)
      end
    end
    if label_t ~= row_t or digest ~= row_digest or code ~= FRAUD then
      return run, start, row_t
    elseif not plan.flag or byte(rows, at + plan.flag) == 1 then
      run, start = run + 1, row_t
    end
  end
  return run, start
end

-- The run at time t, back from a place to the first genuine, no further than `limit`: its unexplained frauds, the time
-- of the first of them, the time of the genuine one. Parts without a label in force and without old rows are passed over.
local function walk_back(e, t, limit, part, k)
  local run, start, genuine = 0, nil, nil
  while part do
    if part.start <= t - LABEL_DELAY_MS or (part.known_from or 0) <= t then
      load_part(e, part)
      run, start, genuine = run_in_part(e.plan, part, k, t, limit, run, start)
    end
    if genuine then
      break
    end
    part, k = part_before(e, part, limit)
  end
  return run, start, genuine
end

-- The same, begun where something may be confirmed. `cursor`: the window of the label delay, if t is after all rows.
local function run_at(e, t, limit, cursor, part, k)
  local newest, confirmed = newest_label(e), t - LABEL_DELAY_MS
  if cursor and newest <= confirmed then -- nothing younger than the label delay is confirmed
    return walk_back(e, t, limit, e.large and part_at(e, e[cursor.start]) or e, e[cursor.index])
  end
  if e.fresh_n > 0 then
    settle(e)
    part, k = e.tail, e.tail.n
  end
  if e.large and newest < t then -- nothing younger than the newest label is
    local from = part_until(e, newest > confirmed and newest or confirmed)
    if from ~= part then
      part, k = from, from and from.n
    end
  end
  return walk_back(e, t, limit, part, k)
end

-- Number of frauds by labels in force at t among the rows before a place, later than `limit` and up to `last`.
local function count_frauds(e, t, limit, last, part, k)
  local frauds = 0
  while part do
    if part.start <= last and (part.known_from or 0) <= t then
      load_part(e, part)
      local labels = part.labels
      local p = count_until(labels, LABEL_ROW, #labels / LABEL_ROW, last)
      costly = costly or p > MOST_ROWS
      while p > 0 do
        local label_t, digest, code
        p, label_t, digest, code = labelled(labels, p, t)
        if label_t <= limit then
          break
        end
        if code == FRAUD then
          frauds = frauds + rows_of(e.plan, part.rows, k, label_t, digest)
        end
      end
    end
    part, k = part_before(e, part, limit)
  end
  return frauds
end
