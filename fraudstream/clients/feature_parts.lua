-- Entities of many rows in parts. feature_changes.lua follows.
--
-- An entity of more than MOST_ROWS rows is kept in parts. A part covers 2^level ms from a multiple of that on and has at
-- most MOST_ROWS rows, or covers one millisecond; it is as long as that allows, up to a cell. So the parts follow from
-- the rows alone, whatever their order of arrival. The part of the newest row, the tail, stands in the entity's string,
-- with the labels from its beginning on; each other part is a string of its own: rows, labels, number of rows (4). The
-- directory has an entry for each of those: start (6), level (1), rows (4), labels (4), the earliest labelled_at (6), and
-- sums of what windows need. What expires goes by whole cells of time, so that most transactions only append.

local NEVER = 2 ^ 48 - 1 -- labelled_at where there is no label

local function part_key(e, start)
  return e.plan.prefix .. '.' .. format('%.0f', start) .. ':' .. e.name
end

local function directory_key(e)
  return e.plan.prefix .. '.d:' .. e.name
end

-- A key that is no longer needed.
local function give_up(e, key)
  e.gone = e.gone or {}
  e.gone[#e.gone + 1] = key
end

-- ---------------------------------------------------------------- parts and their directory

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
  local start, level, n, _, known_from = read('<I6BI4I4I6', e.directory, plan.entry_bytes * (i - 1) + 1)
  local part = e.parts[start]
  if not part then
    part = { start = start, n = n, known_from = known_from }
    e.parts[start] = part
  end
  part.level = level
  return part
end

-- The earliest time at which one of these label rows is known.
local function known_from(labels)
  local earliest = NEVER
  for at = 15, #labels, LABEL_ROW do
    local labelled_at = read('<I6', labels, at)
    if labelled_at < earliest then
      earliest = labelled_at
    end
  end
  return earliest
end

local function load_part(e, part)
  if not part.rows then
    local s = call('GET', part_key(e, part.start))
    local n = read('<I4', s, #s - 3)
    part.n, part.rows = n, s
    part.labels = sub(s, e.plan.row * n + 1, #s - 4)
    part.known_from = known_from(part.labels)
  end
  return part
end

-- The part before this one with the number of its rows; nothing if this one reaches back to `limit` or is the first.
local function part_before(e, part, limit)
  if e.large and part.start > limit then
    local i = entries_until(e, part.start - 1)
    if i > 0 then
      local before = part_numbered(e, i)
      return before, before.n
    end
  end
end

-- The next part that has rows, or the tail.
local function part_after(e, part)
  local count = #directory(e) / e.plan.entry_bytes
  repeat
    local entry = entries_until(e, part.start) + 1
    part = entry <= count and load_part(e, part_numbered(e, entry)) or e.tail
  until part.n > 0 or part == e.tail
  return part
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

local function entry_of(e, part)
  local plan = e.plan
  local values = { part.start, part.level, part.n, #part.labels / LABEL_ROW, known_from(part.labels) }
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
    values[6], values[7], values[8], values[9], values[10] = sum, high, low, most, least
  end
  if plan.ratio then
    values[#values + 1] = top
  end
  return pack(plan.entry, unpack_list(values))
end

-- A part was changed: it will be written, and so will its entry.
local function touch(e, part)
  part.dirty, part.known_from = true, known_from(part.labels)
  e.parts[part.start] = part
end

-- Puts changed parts, in order, in the place of the entry that starts where `replaced` does, or between the others.
local function enter(e, replaced, parts)
  local s, bytes = directory(e), e.plan.entry_bytes
  local before = entries_until(e, replaced - 1)
  local after = entries_until(e, replaced)
  local entries = {}
  for i, part in ipairs(parts) do
    entries[i] = entry_of(e, part)
    touch(e, part)
  end
  if after > before and parts[1].start ~= replaced then
    give_up(e, part_key(e, replaced))
    e.parts[replaced] = nil
  end
  e.directory = sub(s, 1, bytes * before) .. concat(entries) .. sub(s, bytes * after + 1)
  e.directory_dirty = true
end

-- ---------------------------------------------------------------- cutting and joining

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
  e.tail, e.whole = tail, true
end

-- Opens the part after the tail into which t, later than all rows, falls; the tail is entered in the directory.
local function new_tail(e, t)
  local old = e.tail
  local start, level = span_between(e, t, old, nil)
  local closed, rest = cut(e, old, old.start + 2 ^ old.level, old.level)
  local between, after = cut(e, rest, start, level)
  enter(e, closed.start, { closed })
  e.tail = { start = start, level = level, n = 0, rows = '', labels = after.labels }
  e.whole = true
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
  e.start, e.n, e.rows, e.labels = 0, e[ROWS], concat(rows), concat(labels)
  for i = e.plan.small_fields + 1, e.plan.large_fields do
    e[i] = nil
  end
  e.tail, e.whole = e, true
  e.large, e.parts, e.directory, e.directory_dirty = false, nil, nil, nil
end

-- More rows than one string takes: parts from now on.
local function explode(e)
  local parts = {}
  local labels = e.tail.labels
  for i = e.plan.small_fields + 1, e.plan.large_fields do
    e[i] = 0
  end
  e[e.plan.newest_label] = labels ~= '' and read('<I6', labels, #labels - LABEL_ROW + 1) or 0
  e.large, e.parts, e.directory, e.directory_dirty = true, {}, '', true
  split_cells(e, e.tail, parts)
  set_tail(e, 0, parts)
end
