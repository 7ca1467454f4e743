-- The entries of an entity as packed rows, in one string or in many. features.lua follows.
--
-- The client puts in front, made for one feature set: the library's header, the parameters, and the plans CUSTOMER and
-- TERMINAL. A plan says what a row of that entity holds (`row`: its bytes; `amount`, `ratio`, `flag`, `other`, `offset`:
-- where in it, or nil), what the header keeps (`clean`, `age`), whether labels stand with it, and its windows.
--
-- Layout (little endian; docs/adr/0015-feature-sets-and-parts.md):
--   entity  rows, zeros up to a multiple of ROOM rows | labels | header
--   row     event time (6), id digest (8), then offset (6), amount (5), ratio (float32), unexplained (1), other entity (8)
--   label   event time (6), digest (8), labelled_at (6), code (1)
--   header  newest event time (6), rows (4), labels (4), profile, windows as of the newest row; last byte 1: in parts
-- Rows are in order of (event time, digest), labels in order of (event time, digest, labelled_at).
--
-- An entity of more than MOST_ROWS rows is kept in parts. A part covers 2^level ms from a multiple of that on and has at
-- most MOST_ROWS rows, or covers one millisecond; it is as long as that allows, up to a cell. So the parts follow from
-- the rows alone, whatever their order of arrival. The part of the newest row, the tail, stands in the entity's string,
-- with the labels from its beginning on; each other part is a string of its own: rows, labels, number of rows (4). The
-- directory has an entry for each of those: start (6), level (1), rows (4), labels (4), and sums of what windows need.
-- What expires goes by whole cells of time, so that most transactions only append.

-- Bound at the first call: a library that is being loaded sees none of these.
local pack, read, sub, byte, find, rep, format, floor, concat, unpack_list, call

local ROOM, MOST_ROWS = 8, 512
local LABEL_ROW = 21
local NEWEST, ROWS, LABELS = 1, 2, 3 -- the header as an array
local CELLS = 6 -- a cell is the longest 2^n ms of which a retention has at least so many
local LIMB = 2 ^ 50 -- sums of squares are kept as high * 2^50 + low
local NONE = {}

-- ---------------------------------------------------------------- plans

-- Gives each field of the header its place, and builds the formats of header and directory.
local function lay_out(plan)
  local fields, entry = { '<I6I4I4' }, { '<I6BI4I4' }
  local n = LABELS
  local function field(kind)
    n = n + 1
    fields[#fields + 1] = kind
    return n
  end
  if plan.clean then
    plan.clean_n, plan.clean_sum = field('d'), field('d')
  end
  if plan.age then
    plan.first = field('I6')
  end
  for _, w in ipairs(plan.windows) do
    w.index, w.rows = field('I4'), field('I4')
    if w.sums then
      w.total = field('d')
    end
    if w.squares then
      w.high, w.low = field('d'), field('d')
    end
    if w.extremes then
      w.most, w.most_t, w.least, w.least_t = field('I5'), field('I6'), field('I5'), field('I6')
    end
    if w.hot then
      w.top, w.top_t, w.first_hot, w.last_hot = field('f'), field('I6'), field('I6'), field('I6')
    end
  end
  plan.small, plan.small_fields = concat(fields) .. 'B', n
  plan.tail_n, plan.tail_start, plan.tail_level, plan.newest_label = field('I4'), field('I6'), field('B'), field('I6')
  for _, w in ipairs(plan.windows) do
    w.start = field('I6')
  end
  plan.large, plan.large_fields = concat(fields) .. 'B', n
  plan.small_bytes, plan.large_bytes = #pack(plan.small, unpack_list(plan.zeros(n + 1))), #pack(plan.large, unpack_list(plan.zeros(n + 1)))
  if plan.amount then
    entry[2] = 'dddI5I5' -- sum, squares high and low, most, least
  end
  if plan.ratio then
    entry[#entry + 1] = 'f'
  end
  plan.entry = concat(entry)
  plan.entry_bytes = #pack(plan.entry, unpack_list(plan.zeros(10)))
  plan.rooms = {}
  for n = 0, ROOM - 1 do
    plan.rooms[n] = rep('\0', plan.row * n)
  end
  plan.others = plan.previous or #plan.distincts + #plan.runs + #plan.shares > 0
  plan.cell = floor(math.log(plan.retention / CELLS) / math.log(2))
  plan.cell_ms = 2 ^ plan.cell
end

local function zeros(n)
  local values = {}
  for i = 1, n do
    values[i] = 0
  end
  return values
end

local function bind()
  pack, read = struct.pack, struct.unpack
  sub, byte, find, rep, format = string.sub, string.byte, string.find, string.rep, string.format
  floor, concat, unpack_list, call = math.floor, table.concat, unpack, redis.call
  for _, plan in ipairs({ CUSTOMER, TERMINAL }) do
    plan.zeros = zeros
    lay_out(plan)
  end
end

-- ---------------------------------------------------------------- rows
-- A row or label begins with a 6-byte event time that rises from row to row; after it comes the digest.

-- Number of the first n rows of `width` bytes whose event time is <= limit.
local function count_until(s, width, n, limit)
  if n == 0 or read('<I6', s, width * (n - 1) + 1) <= limit then
    return n
  end
  local low, high = 0, n - 1
  while low < high do
    local middle = (low + high) / 2
    middle = middle - middle % 1
    if read('<I6', s, width * middle + 1) <= limit then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
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

-- The same for what follows the digest of two rows, so that equal ones stand in one order whoever came first.
local function compare_rest(a, b)
  for i = 15, #a do
    local x, y = byte(a, i), byte(b, i)
    if x ~= y then
      return x < y and -1 or 1
    end
  end
  return 0
end

-- Number of the first n rows before (t, digest); if `row` is given, those equal to it and up to its rest included.
local function position(s, width, n, t, digest, row)
  local k = count_until(s, width, n, t)
  while k > 0 do
    local at = width * (k - 1) + 1
    if read('<I6', s, at) < t then
      break
    end
    local order = compare(sub(s, at + 6, at + 13), digest)
    if order < 0 or (order == 0 and row and compare_rest(sub(s, at, at + width - 1), row) <= 0) then
      break
    end
    k = k - 1
  end
  return k
end

-- ---------------------------------------------------------------- entities and parts

-- The entity `name` in string `s` of `key` (false or nil: none yet); the keys of its parts begin with `prefix`.
local function open_entity(plan, prefix, name, key, s)
  local e = { plan = plan, prefix = prefix, name = name, key = key, h = NONE, tail = NONE, stored = 0, start = 0, level = 0, n = 0,
    rows = '', labels = '' }
  e.tail = e -- an entity is its own tail until it is kept in parts
  if not s then
    e.h, e.whole = plan.zeros(plan.small_fields), true
  elseif byte(s, -1) == 0 then
    local h = { read(plan.small, s, #s - plan.small_bytes + 1) }
    e.h, e.n = h, h[ROWS]
  else
    local h = { read(plan.large, s, #s - plan.large_bytes + 1) }
    e.h, e.large, e.parts = h, true, {}
    e.n, e.start, e.level = h[plan.tail_n], h[plan.tail_start], h[plan.tail_level]
  end
  local n = e.n
  if s then
    e.stored, e.rows = n, s
    if e.h[LABELS] > 0 then
      local at = plan.row * (n + (-n) % ROOM)
      e.labels = sub(s, at + 1, at + LABEL_ROW * e.h[LABELS])
    end
  end
  return e
end

-- A row that was appended joins the others; to be called, if there is one, before rows are read.
local function settle(e)
  local tail = e.tail
  tail.rows = sub(tail.rows, 1, e.plan.row * (tail.n - 1)) .. e.appended
  e.appended = nil
end

-- Appends a row after all others of the tail.
local function append(e, row)
  e.appended = row
  e.whole = e.whole or e.fresh ~= nil -- a second one in a call: all is written
  e.fresh = row
  e.tail.n = e.tail.n + 1
  e.h[ROWS] = e.h[ROWS] + 1
end

local function part_key(e, start)
  return e.prefix .. '.' .. format('%.0f', start) .. ':' .. e.name
end

local function directory_key(e)
  return e.prefix .. '.d:' .. e.name
end

-- A key that is no longer needed.
local function give_up(e, key)
  e.gone = e.gone or {}
  e.gone[#e.gone + 1] = key
end

-- The directory as a string of entries, in order of their start.
local function directory(e)
  if not e.directory then
    e.directory = call('GET', directory_key(e)) or ''
  end
  return e.directory
end

-- Number of entries of the directory that start at or before t.
local function entries_until(e, t)
  local s = directory(e)
  return count_until(s, e.plan.entry_bytes, #s / e.plan.entry_bytes, t)
end

-- The part of the entry numbered `i` from 1; what it holds is read by `load_part`.
local function part_numbered(e, i)
  local plan = e.plan
  local start, level, n, labels = read('<I6BI4I4', e.directory, plan.entry_bytes * (i - 1) + 1)
  local part = e.parts[start]
  if not part then
    part = { start = start, n = n, label_rows = labels }
    e.parts[start] = part
  end
  part.level = level
  return part
end

local function load_part(e, part)
  if not part.rows then
    local s = call('GET', part_key(e, part.start))
    local n = read('<I4', s, #s - 3)
    part.n, part.rows = n, s
    part.labels = sub(s, e.plan.row * n + 1, #s - 4)
    part.label_rows = #part.labels / LABEL_ROW
  end
  return part
end

-- The part before this one, or nil.
local function part_before(e, part)
  if e.large then
    local i = entries_until(e, part.start - 1)
    return i > 0 and part_numbered(e, i) or nil
  end
end

-- The part that starts at `start`, which a cursor knows without the directory.
local function part_at(e, start)
  if start >= e.tail.start then
    return e.tail
  end
  local part = e.parts[start]
  if not part then
    part = { start = start }
    e.parts[start] = part
  end
  return load_part(e, part)
end

-- The last part that starts at or before t (nil: none).
local function part_until(e, t)
  if not e.large or t >= e.tail.start then
    return e.tail
  end
  local i = entries_until(e, t)
  return i > 0 and load_part(e, part_numbered(e, i)) or nil
end

-- The square of an amount <= 10^12 as high, low.
local function square(a)
  local a0 = a % 1048576
  local a1 = (a - a0) / 1048576
  local middle, top = 2 * a1 * a0, a1 * a1
  local m, p = middle % 2 ^ 30, top % 1024
  local low = a0 * a0 + m * 1048576
  local high = (middle - m) / 2 ^ 30 + (top - p) / 1024
  low = low + p * 2 ^ 40
  local rest = low % LIMB
  return high + (low - rest) / LIMB, rest
end

-- ---------------------------------------------------------------- the directory

local function entry_of(e, part)
  local plan = e.plan
  local values = { part.start, part.level, part.n, #part.labels / LABEL_ROW }
  local sum, high, low, most, least, top = 0, 0, 0, 0, 0, 0
  for i = 0, (plan.amount or plan.ratio) and part.n - 1 or -1 do
    local at = plan.row * i + 1
    if plan.amount then
      local a = read('<I5', part.rows, at + plan.amount)
      local h, l = square(a)
      sum, high, low = sum + a, high + h, low + l
      if low >= LIMB then
        high, low = high + 1, low - LIMB
      end
      if i == 0 or a < least then
        least = a
      end
      if a > most then
        most = a
      end
    end
    if plan.ratio then
      local ratio = read('<f', part.rows, at + plan.ratio)
      if ratio > top then
        top = ratio
      end
    end
  end
  if plan.amount then
    values[5], values[6], values[7], values[8], values[9] = sum, high, low, most, least
  end
  if plan.ratio then
    values[#values + 1] = top
  end
  return pack(plan.entry, unpack_list(values))
end

-- Puts changed parts, in order, in the place of the entry that starts where `replaced` does, or between the others.
local function enter(e, replaced, parts)
  local s, bytes = directory(e), e.plan.entry_bytes
  local before = entries_until(e, replaced - 1)
  local after = entries_until(e, replaced)
  local entries = {}
  for i, part in ipairs(parts) do
    entries[i] = entry_of(e, part)
    part.dirty, part.label_rows = true, #part.labels / LABEL_ROW
    e.parts[part.start] = part
  end
  if after > before and parts[1].start ~= replaced then
    give_up(e, part_key(e, replaced))
    e.parts[replaced] = nil
  end
  e.directory = sub(s, 1, bytes * before) .. concat(entries) .. sub(s, bytes * after + 1)
  e.directory_dirty = true
end

-- The lowest level at which a and b lie in the same span.
local function common_level(a, b)
  local level = 0
  while floor(a / 2 ^ level) ~= floor(b / 2 ^ level) do
    level = level + 1
  end
  return level
end

-- Start and level of the part that t falls into if there is none yet, between the parts `before` and `after` (or nil).
local function span_between(e, t, before, after)
  local level = e.plan.cell
  for _, part in ipairs({ before or NONE, after or NONE }) do
    if part.start then
      local common = common_level(t, part.start) - 1
      level = common < level and common or level
    end
  end
  return floor(t / 2 ^ level) * 2 ^ level, level
end

-- Cuts a part at `border` into two.
local function cut(e, part, border, level)
  local width = e.plan.row
  local n = count_until(part.rows, width, part.n, border - 1)
  local m = count_until(part.labels, LABEL_ROW, #part.labels / LABEL_ROW, border - 1)
  return { start = part.start, level = level, n = n, rows = sub(part.rows, 1, width * n), labels = sub(part.labels, 1, LABEL_ROW * m) },
    { start = border, level = level, n = part.n - n, rows = sub(part.rows, width * n + 1, width * part.n),
      labels = sub(part.labels, LABEL_ROW * m + 1) }
end

-- Appends to `out` the parts that the part falls into: halves of halves, none empty.
local function split(e, part, out)
  if part.n == 0 and part.labels == '' then
    return
  end
  if part.n <= MOST_ROWS or part.level == 0 then
    out[#out + 1] = part
    return
  end
  local level = part.level - 1
  local left, right = cut(e, part, part.start + 2 ^ level, level)
  split(e, left, out)
  split(e, right, out)
end

-- Appends to `out` the parts of rows and labels that lie in any number of cells.
local function split_cells(e, part, out)
  local size = e.plan.cell_ms
  while part.n > 0 or part.labels ~= '' do
    local first = part.n > 0 and read('<I6', part.rows, 1) or nil
    local label = part.labels ~= '' and read('<I6', part.labels, 1) or nil
    local t = first and label and (first < label and first or label) or first or label
    local cell = floor(t / size) * size
    local left
    left, part = cut(e, part, cell + size, e.plan.cell)
    left.start = cell
    split(e, left, out)
  end
end

-- Of parts in order, the last one with rows becomes the tail, with all labels after it; the others are entered.
local function set_tail(e, replaced, parts)
  local last = #parts
  local labels = ''
  while parts[last].n == 0 do
    labels = parts[last].labels .. labels
    parts[last] = nil
    last = last - 1
  end
  local tail = parts[last]
  parts[last] = nil
  tail.labels = tail.labels .. labels
  if #parts > 0 then
    enter(e, replaced, parts)
  end
  e.tail, e.whole, e.appended = tail, true, nil
end

-- Opens the part after the tail into which t, later than all rows, falls; the tail is entered in the directory.
local function new_tail(e, t)
  local old = e.tail
  local start, level = span_between(e, t, old, nil)
  local closed, rest = cut(e, old, old.start + 2 ^ old.level, old.level)
  local between, after = cut(e, rest, start, level)
  enter(e, closed.start, { closed })
  e.tail = { start = start, level = level, n = 0, rows = '', labels = after.labels }
  e.whole, e.appended = true, nil
  return between.labels
end

-- The stored part into which t, before the tail, falls; a new one if there is none. Second value: whether it is new.
local function part_for(e, t)
  local i = entries_until(e, t)
  local before = i > 0 and part_numbered(e, i) or nil
  if before and t < before.start + 2 ^ before.level then
    return load_part(e, before), false
  end
  local count = #e.directory / e.plan.entry_bytes
  local after = i < count and part_numbered(e, i + 1) or e.tail
  local start, level = span_between(e, t, before, after)
  return { start = start, level = level, n = 0, rows = '', labels = '' }, true
end

-- All rows and labels in one string again, once there are few.
local function collapse(e)
  local rows, labels = {}, {}
  for i = 1, #directory(e) / e.plan.entry_bytes do
    local part = load_part(e, part_numbered(e, i))
    rows[i], labels[i] = sub(part.rows, 1, e.plan.row * part.n), part.labels
    give_up(e, part_key(e, part.start))
  end
  local tail = e.tail
  rows[#rows + 1], labels[#labels + 1] = sub(tail.rows, 1, e.plan.row * tail.n), tail.labels
  give_up(e, directory_key(e))
  e.start, e.level, e.n, e.rows, e.labels = 0, 0, e.h[ROWS], concat(rows), concat(labels)
  for i = e.plan.small_fields + 1, e.plan.large_fields + 1 do
    e.h[i] = nil
  end
  e.tail = e
  e.large, e.parts, e.directory, e.directory_dirty, e.whole = nil, nil, nil, nil, true
end

-- More rows than one string takes: parts from now on.
local function explode(e)
  local parts = {}
  local labels = e.tail.labels
  for i = e.plan.small_fields + 1, e.plan.large_fields do
    e.h[i] = 0
  end
  e.h[e.plan.newest_label] = labels ~= '' and read('<I6', labels, #labels - LABEL_ROW + 1) or 0
  e.large, e.parts, e.directory, e.directory_dirty = true, {}, '', true
  split_cells(e, e.tail, parts)
  set_tail(e, 0, parts)
end

-- ---------------------------------------------------------------- labels

-- Puts a label row into the labels of a part.
local function insert_label(part, row, t, digest, labelled_at)
  local s = part.labels
  local at, after = #s + 1, #s + 1 -- the row goes in before `at`; what begins at `after` follows it
  while at > 1 do
    local previous = at - LABEL_ROW
    local label_t = read('<I6', s, previous)
    local order = label_t == t and compare(sub(s, previous + 6, previous + 13), digest) or label_t - t
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
  part.labels = sub(s, 1, at - 1) .. row .. sub(s, after)
end

local function put_label(e, row, t, digest, labelled_at)
  local h = e.h
  if not e.large or t >= e.tail.start then
    insert_label(e.tail, row, t, digest, labelled_at)
    e.whole = true
  else
    local part = part_for(e, t)
    insert_label(part, row, t, digest, labelled_at)
    enter(e, part.start, { part })
  end
  if e.large and t > h[e.plan.newest_label] then
    h[e.plan.newest_label] = t
  end
end

-- ---------------------------------------------------------------- change of the rows

-- Event time before which nothing is kept, while the newest is t: a border between cells.
local function kept_from(plan, t)
  return floor((t - plan.retention) / plan.cell_ms) * plan.cell_ms
end

-- Drops rows and labels of a string before `border`; returns the number of rows.
local function drop_from(e, part, border)
  local k = count_until(part.rows, e.plan.row, part.n, border - 1)
  local m = count_until(part.labels, LABEL_ROW, #part.labels / LABEL_ROW, border - 1)
  if k > 0 then
    part.rows = sub(part.rows, e.plan.row * k + 1, e.plan.row * part.n)
    part.n = part.n - k
  end
  if m > 0 then
    part.labels = sub(part.labels, LABEL_ROW * m + 1)
  end
  return k
end

-- Drops what lies before `border`. Returns whether cursors have moved.
local function expire(e, border)
  local h, plan = e.h, e.plan
  if not e.large then
    local labels = #e.tail.labels
    local k = drop_from(e, e.tail, border)
    h[ROWS] = h[ROWS] - k
    e.whole = e.whole or k > 0 or #e.tail.labels < labels
    return k > 0
  end
  if h[plan.newest_label] < border then
    h[plan.newest_label] = 0
  end
  local expired = entries_until(e, border - 1)
  for i = 1, expired do
    local part = part_numbered(e, i)
    h[ROWS] = h[ROWS] - part.n
    give_up(e, part_key(e, part.start))
    e.parts[part.start] = nil
  end
  if e.tail.start < border then
    local k = drop_from(e, e.tail, border)
    h[ROWS] = h[ROWS] - k
    e.whole = true
  end
  if expired > 0 then
    e.directory = sub(e.directory, plan.entry_bytes * expired + 1)
    e.directory_dirty = true
  end
  if h[ROWS] <= MOST_ROWS then
    collapse(e)
  end
  return true
end

-- Puts a row, later than all others, at the end. Returns whether cursors must be placed anew.
local function append_row(e, t, row)
  local moved = false
  local tail = e.tail
  if e.large and t >= tail.start + 2 ^ tail.level then
    local labels = new_tail(e, t)
    for at = 1, #labels, LABEL_ROW do
      local label_t, digest, labelled_at = read('<I6c8I6', labels, at)
      put_label(e, sub(labels, at, at + LABEL_ROW - 1), label_t, digest, labelled_at)
    end
    moved = true
  end
  if not e.large and e.tail.n >= MOST_ROWS or e.large and e.tail.n >= MOST_ROWS and e.tail.level > 0 then
    append(e, row)
    settle(e)
    if e.large then
      local parts = {}
      local replaced = e.tail.start
      split(e, e.tail, parts)
      set_tail(e, replaced, parts)
    else
      explode(e)
    end
    return true
  end
  append(e, row)
  return moved
end

-- Puts a late row at its place.
local function insert_row(e, t, digest, row)
  local width = e.plan.row
  local part = e.tail
  if e.large and t < part.start then
    part = part_for(e, t)
  end
  local k = position(part.rows, width, part.n, t, digest, row)
  part.rows = sub(part.rows, 1, width * k) .. row .. sub(part.rows, width * k + 1, width * part.n)
  part.n = part.n + 1
  e.h[ROWS] = e.h[ROWS] + 1
  if part == e.tail and not e.large then
    e.whole = true
    if part.n > MOST_ROWS then
      explode(e)
    end
    return
  end
  local parts = {}
  split(e, part, parts)
  if part == e.tail then
    set_tail(e, part.start, parts)
  else
    enter(e, part.start, parts)
  end
end

-- ---------------------------------------------------------------- writing

-- What an entity has to write: appends to `sets` (key, value, ...) and `ranges` (key, offset, bytes, ...).
local function flush(e, sets, ranges)
  local plan, h, tail = e.plan, e.h, e.tail
  h[LABELS] = #tail.labels / LABEL_ROW
  local header
  if e.large then
    h[plan.tail_n], h[plan.tail_start], h[plan.tail_level] = tail.n, tail.start, tail.level
    h[plan.large_fields + 1] = 1
    header = pack(plan.large, unpack_list(h))
  else
    h[plan.small_fields + 1] = 0
    header = pack(plan.small, unpack_list(h))
  end
  local room = plan.rooms[(-tail.n) % ROOM]
  if e.whole or tail.n + (-tail.n) % ROOM ~= e.stored + (-e.stored) % ROOM then
    if e.appended then
      settle(e)
    end
    local n = #sets
    sets[n + 1] = e.key
    sets[n + 2] = sub(tail.rows, 1, plan.row * tail.n) .. room .. tail.labels .. header
  else
    local n = #ranges
    ranges[n + 1] = e.key
    ranges[n + 2] = plan.row * e.stored
    ranges[n + 3] = (e.fresh or '') .. room .. tail.labels .. header
  end
  if not e.large then
    return
  end
  for start, part in pairs(e.parts) do
    if part.dirty and start ~= tail.start then
      sets[#sets + 1] = part_key(e, start)
      sets[#sets + 1] = sub(part.rows, 1, plan.row * part.n) .. part.labels .. pack('<I4', part.n)
    end
  end
  if e.directory_dirty then
    sets[#sets + 1] = directory_key(e)
    sets[#sets + 1] = e.directory
  end
end
