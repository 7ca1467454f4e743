-- The nine features of one transaction, on the packed states of its customer and terminal. feature_calls.lua follows.
--
-- The client puts the library's header and these constants in front: LIBRARY, PRIOR_SUM, CLEAN_MAX, CLEAN_RATIO,
-- WARM_UP, HOT_RATIO, CUSTOMER_WINDOW, TERMINAL_WINDOW, LATENESS, LABEL_DELAY, DAY, MINOR_PER_MAJOR,
-- NONE_DAYS, UNKNOWN_DAYS, NO_RUN_DAYS. Amounts are in minor units, times in milliseconds.
--
-- Layout (little endian, docs/adr/0011-feature-state-layout.md):
--   customer  n, sum of clean amounts (2 doubles) | rows: event time (6), digest (8), offset (6) | a column of -ratio (float32)
--   terminal  number of rows (4) | rows: 2 * event time + unexplained (6), digest (8)
--             | labels: event time (6), digest (8), labelled_at (6), code (1)
--   rows are in order of (event time, digest), labels in order of (event time, digest, labelled_at).

-- Bound at the first call: a library that is being loaded sees none of these.
local pack, read, sub, find, format, floor, min, concat, unpack_list, call

local CUSTOMER_ROWS, CUSTOMER_ROW = 17, 20 -- where rows begin, bytes of a row
local TERMINAL_ROWS, TERMINAL_ROW = 5, 14
local LABEL_ROW = 21
local FRAUD, GENUINE = 1, 2 -- 3 is unsure
local DUPLICATE, CUSTOMER_BEYOND, TERMINAL_BEYOND, CUSTOMER_TRUNCATED, TERMINAL_TRUNCATED = 1, 2, 4, 8, 16
local MOST_FLOATS = 250 -- read at once
local CUSTOMER_RETENTION = CUSTOMER_WINDOW + LATENESS
local TERMINAL_RETENTION = TERMINAL_WINDOW + LATENESS
local FLOATS = {}

local function bind()
  pack, read = struct.pack, struct.unpack
  sub, find, format = string.sub, string.find, string.format
  floor, min, concat, unpack_list, call = math.floor, math.min, table.concat, unpack, redis.call
  for n = 1, MOST_FLOATS do
    FLOATS[n] = '<' .. string.rep('f', n)
  end
end

-- ---------------------------------------------------------------- rows
-- A row begins with a 6-byte integer that rises from row to row; after it comes the digest.

-- Number of the first n rows of `width` bytes from `base` on whose integer is <= limit.
local function count_until(s, base, width, n, limit)
  if n == 0 or read('<I6', s, base + width * (n - 1)) <= limit then
    return n
  end
  local low, high = 0, n - 1
  while low < high do
    local middle = (low + high) / 2
    middle = middle - middle % 1
    if read('<I6', s, base + width * middle) <= limit then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

-- The same, for when they are few.
local function count_few(s, base, width, n, limit)
  local k = 0
  while k < n and read('<I6', s, base + width * k) <= limit do
    k = k + 1
  end
  return k
end

local function digest_at(s, at)
  return sub(s, at + 6, at + 13)
end

-- -1, 0 or 1 as digest `a` comes before, with or after `b` in byte order (Lua's `<` follows the locale).
local function compare(a, b)
  if a == b then
    return 0
  end
  local a1, a2 = read('>I4I4', a)
  local b1, b2 = read('>I4I4', b)
  return (a1 < b1 or (a1 == b1 and a2 < b2)) and -1 or 1
end

-- The n rows or values of `width` bytes from `base` on, without the first `drop`, `value` put after the k-th.
local function insert(s, base, width, n, drop, k, value)
  return sub(s, base + width * drop, base + width * k - 1) .. value
    .. sub(s, base + width * k, base + width * n - 1)
end

-- ---------------------------------------------------------------- customer

-- Features 3 to 5 from the ratios of entries first..last (0-based, last excluded) at time t.
local function ratio_features(s, ratios, first, last, t)
  local smallest, hot_first, hot_last = 0, nil, nil -- of the negative ratios
  for from = first, last - 1, MOST_FLOATS do
    local m = last - from
    if m > MOST_FLOATS then
      m = MOST_FLOATS
    end
    local least = min(read(FLOATS[m], s, ratios + 4 * from)) -- the position that `read` adds is positive
    if least < -HOT_RATIO then
      local window = { read(FLOATS[m], s, ratios + 4 * from) }
      for i = 1, m do
        if window[i] < -HOT_RATIO then
          hot_first, hot_last = hot_first or from + i - 1, from + i - 1
        end
      end
    end
    if least < smallest then
      smallest = least
    end
  end
  if not hot_last then
    return 0 - smallest, NONE_DAYS, NONE_DAYS
  end
  return 0 - smallest, (t - read('<I6', s, CUSTOMER_ROWS + CUSTOMER_ROW * hot_last)) / DAY,
    (t - read('<I6', s, CUSTOMER_ROWS + CUSTOMER_ROW * hot_first)) / DAY
end

-- The offset of the retained transaction with this digest, or nil.
local function first_offset(s, ratios, digest)
  local at = find(s, digest, CUSTOMER_ROWS, true)
  while at and at < ratios do
    if (at - CUSTOMER_ROWS) % CUSTOMER_ROW == 6 then
      return (read('<I6', s, at + 8))
    end
    at = find(s, digest, at + 1, true)
  end
end

-- Number of rows strictly before (t, digest).
local function customer_position(s, n, t, digest)
  local k = count_until(s, CUSTOMER_ROWS, CUSTOMER_ROW, n, t)
  while k > 0 do
    local at = CUSTOMER_ROWS + CUSTOMER_ROW * (k - 1)
    if read('<I6', s, at) < t or compare(digest_at(s, at), digest) < 0 then
      break
    end
    k = k - 1
  end
  return k
end

-- One transaction of a customer. Returns the new state (nil: unchanged), ratio, features 3, 4, 5, flags, duplicate_of.
local function apply_customer(s, t, digest, amount, offset)
  local n, clean, total = 0, 0, 0
  if s then
    n, clean, total = (#s - CUSTOMER_ROWS + 1) / (CUSTOMER_ROW + 4), read('<dd', s)
  else
    s = pack('<dd', 0, 0)
  end
  local ratios = CUSTOMER_ROWS + CUSTOMER_ROW * n
  local packed_ratio = pack('<f', -amount * (clean + 1) / (total + PRIOR_SUM))
  local ratio = 0 - read('<f', packed_ratio)

  local newest = n > 0 and read('<I6', s, ratios - CUSTOMER_ROW) or 0
  local k = newest < t and n or customer_position(s, n, t, digest)
  local first = count_until(s, CUSTOMER_ROWS, CUSTOMER_ROW, k, t - CUSTOMER_WINDOW)
  local largest, since_last, since_first = ratio_features(s, ratios, first, k, t)

  local flags = t < newest - LATENESS and CUSTOMER_TRUNCATED or 0
  local duplicate_of = n > 0 and first_offset(s, ratios, digest)
  if duplicate_of then
    return nil, ratio, largest, since_last, since_first, flags + DUPLICATE, duplicate_of
  end
  if amount <= CLEAN_MAX and (clean < WARM_UP or ratio <= CLEAN_RATIO) then
    clean, total = clean + 1, total + amount
  end
  local header = pack('<dd', clean, total)
  if t <= newest - CUSTOMER_RETENTION then
    s = header .. sub(s, CUSTOMER_ROWS)
    return s, ratio, largest, since_last, since_first, flags + CUSTOMER_BEYOND, -1
  end
  local cut = (t > newest and t or newest) - CUSTOMER_RETENTION
  local drop = count_few(s, CUSTOMER_ROWS, CUSTOMER_ROW, n, cut)
  local row = pack('<I6c8I6', t, digest, offset)
  if k == n then
    s = header .. sub(s, CUSTOMER_ROWS + CUSTOMER_ROW * drop, ratios - 1) .. row
      .. sub(s, ratios + 4 * drop) .. packed_ratio
  else
    s = header .. insert(s, CUSTOMER_ROWS, CUSTOMER_ROW, n, drop, k, row)
      .. insert(s, ratios, 4, n, drop, k, packed_ratio)
  end
  return s, ratio, largest, since_last, since_first, flags, -1
end

-- ---------------------------------------------------------------- terminal

-- The label in force at `now` for (t, digest), and the number of label rows that do not come after (t, digest).
-- `p` is the number of rows to look at, from the last one down.
local function label_at(s, labels, p, t, digest, now)
  local order
  while p > 0 do
    local at = labels + LABEL_ROW * (p - 1)
    local label_t = read('<I6', s, at)
    order = label_t == t and compare(digest_at(s, at), digest) or label_t - t
    if order <= 0 then
      break
    end
    p = p - 1
  end
  local row = order == 0 and p or 0
  while row > 0 do
    local at = labels + LABEL_ROW * (row - 1)
    local labelled_at, code = read('<I6B', s, at + 14)
    if read('<I6', s, at) ~= t or digest_at(s, at) ~= digest then
      break
    end
    if labelled_at <= now then
      return code, p
    end
    row = row - 1
  end
  return nil, p
end

-- Features 6 to 9 at time t from the first k of the terminal's rows.
local function run_features(s, labels, k, t)
  local p = (#s - labels + 1) / LABEL_ROW
  local confirmed_until = t - LABEL_DELAY
  local walked_until = confirmed_until -- what is newer and has no label need not be looked at
  if p > 0 then
    local newest_label = read('<I6', s, labels + LABEL_ROW * (p - 1))
    walked_until = newest_label > walked_until and newest_label or walked_until
  end
  local run, start, genuine = 0, nil, nil
  for j = count_until(s, TERMINAL_ROWS, TERMINAL_ROW, k, 2 * walked_until + 1) - 1, 0, -1 do
    local at = TERMINAL_ROWS + TERMINAL_ROW * j
    local value = read('<I6', s, at)
    local unexplained = value % 2
    local row_t = (value - unexplained) / 2
    if row_t <= t - TERMINAL_WINDOW then
      break
    end
    local code
    if p > 0 then
      code, p = label_at(s, labels, p, row_t, digest_at(s, at), t)
    end
    if code == FRAUD then
      if unexplained == 1 then
        run, start = run + 1, row_t
      end
    elseif code == GENUINE or row_t <= confirmed_until then
      genuine = row_t
      break
    end
  end
  local since_genuine = genuine and (t - genuine) / DAY or NONE_DAYS
  if run == 0 then
    return 0, NO_RUN_DAYS, NO_RUN_DAYS, since_genuine
  end
  local today = floor(t / DAY)
  return run, today - floor(start / DAY), genuine and today - floor(genuine / DAY) or UNKNOWN_DAYS, since_genuine
end

-- Number of rows before (t, digest); if `flag` is given, those of the same (t, digest) and a flag up to it included.
local function terminal_position(s, n, t, digest, flag)
  local k = count_until(s, TERMINAL_ROWS, TERMINAL_ROW, n, 2 * t + 1)
  while k > 0 do
    local at = TERMINAL_ROWS + TERMINAL_ROW * (k - 1)
    local value = read('<I6', s, at)
    if value < 2 * t then
      break
    end
    local order = compare(digest_at(s, at), digest)
    if order < 0 or (order == 0 and flag and value % 2 <= flag) then
      break
    end
    k = k - 1
  end
  return k
end

-- One transaction at a terminal; `store` is false for a duplicate, whose features are wanted alone.
-- Returns the new state (nil: unchanged), features 6 to 9, flags.
local function apply_terminal(s, t, digest, unexplained, store)
  s = s or '\0\0\0\0'
  local n = read('<I4', s)
  local labels = TERMINAL_ROWS + TERMINAL_ROW * n
  local newest = n > 0 and floor(read('<I6', s, labels - TERMINAL_ROW) / 2) or 0
  local in_order = newest < t
  local k = in_order and n or terminal_position(s, n, t, digest)
  local run, age, before, since_genuine = run_features(s, labels, k, t)

  local flags = t < newest - LATENESS and TERMINAL_TRUNCATED or 0
  if not store then
    return nil, run, age, before, since_genuine, flags
  end
  if t <= newest - TERMINAL_RETENTION then
    return nil, run, age, before, since_genuine, flags + TERMINAL_BEYOND
  end
  local cut = (in_order and t or newest) - TERMINAL_RETENTION
  local drop = count_few(s, TERMINAL_ROWS, TERMINAL_ROW, n, 2 * cut + 1)
  local kept = labels
  while kept <= #s and read('<I6', s, kept) <= cut do
    kept = kept + LABEL_ROW
  end
  k = in_order and n or terminal_position(s, n, t, digest, unexplained)
  local row = pack('<I6c8', 2 * t + unexplained, digest)
  s = pack('<I4', n - drop + 1) .. sub(s, TERMINAL_ROWS + TERMINAL_ROW * drop, TERMINAL_ROWS + TERMINAL_ROW * k - 1)
    .. row .. sub(s, TERMINAL_ROWS + TERMINAL_ROW * k, labels - 1) .. sub(s, kept)
  return s, run, age, before, since_genuine, flags
end

-- One label. Returns the new state, nil where its transaction is beyond retention.
local function apply_label(s, t, digest, labelled_at, code)
  s = s or '\0\0\0\0'
  local n = read('<I4', s)
  local labels = TERMINAL_ROWS + TERMINAL_ROW * n
  if n > 0 and t <= floor(read('<I6', s, labels - TERMINAL_ROW) / 2) - TERMINAL_RETENTION then
    return nil
  end
  local row = pack('<I6c8I6B', t, digest, labelled_at, code)
  local at, after = #s + 1, #s + 1 -- the row goes in before `at`; what begins at `after` follows it
  while at > labels do
    local previous = at - LABEL_ROW
    local label_t = read('<I6', s, previous)
    local order = label_t == t and compare(digest_at(s, previous), digest) or label_t - t
    if order == 0 then
      order = read('<I6', s, previous + 14) - labelled_at
    end
    if order < 0 then
      break
    end
    at = previous
    if order == 0 then -- the same time again: the later answer takes the place of the earlier
      break
    end
    after = previous
  end
  return sub(s, 1, at - 1) .. row .. sub(s, after)
end
