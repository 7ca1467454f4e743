-- What changes the rows and labels of an entity, and how that is written. features.lua follows.

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
  if not e.large or t >= e.tail.start then
    insert_label(e.tail, row, t, digest, labelled_at)
    e.whole = true
  else
    local part, new = part_for(e, t)
    insert_label(part, row, t, digest, labelled_at)
    if new then
      enter(e, part.start, { part })
    else
      touch(e, part)
    end
  end
  if e.large and t > e[e.plan.newest_label] then
    e[e.plan.newest_label] = t
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
  local plan = e.plan
  if e.fresh_n > 0 then
    settle(e)
  end
  if not e.large then
    local labels = #e.labels
    local k = drop_from(e, e, border)
    e[ROWS] = e[ROWS] - k
    e.whole = e.whole or k > 0 or #e.labels < labels
    return k > 0
  end
  if e[plan.newest_label] < border then
    e[plan.newest_label] = 0
  end
  local expired = entries_until(e, border - 1)
  for i = 1, expired do
    local part = part_numbered(e, i)
    e[ROWS] = e[ROWS] - part.n
    give_up(e, part_key(e, part.start))
    e.parts[part.start] = nil
  end
  if e.tail.start < border then
    local k = drop_from(e, e.tail, border)
    e[ROWS] = e[ROWS] - k
    e.whole = true
  end
  if expired > 0 then
    e.directory = sub(e.directory, plan.entry_bytes * expired + 1)
    e.directory_dirty = true
  end
  if e[ROWS] <= MOST_ROWS then
    collapse(e)
  end
  return true
end

-- Puts a row, later than all others, at the end. Returns whether cursors must be placed anew.
local function append_row(e, t, row)
  local moved = false
  if e.large and t >= e.tail.start + 2 ^ e.tail.level then
    if e.fresh_n > 0 then
      settle(e)
    end
    local labels = new_tail(e, t)
    for at = 1, #labels, LABEL_ROW do
      local label_t, digest, labelled_at = read('<I6c8I6', labels, at)
      put_label(e, sub(labels, at, at + LABEL_ROW - 1), label_t, digest, labelled_at)
    end
    moved = true
  end
  append(e, t, row)
  local tail = e.tail
  if tail.n + e.fresh_n <= MOST_ROWS or e.large and tail.level == 0 then
    return moved
  end
  if e.fresh_n > 0 then
    settle(e)
  end
  if e.large then
    local parts = {}
    split(e, tail, parts)
    set_tail(e, tail.start, parts)
  else
    explode(e)
  end
  return true
end

-- Puts a late row at its place.
local function insert_row(e, t, digest, row)
  local width = e.plan.row
  local part, new = e.tail, false
  if e.large and t < part.start then
    part, new = part_for(e, t)
  end
  local k = position(part.rows, width, part.n, t, digest, row)
  part.rows = sub(part.rows, 1, width * k) .. row .. sub(part.rows, width * k + 1, width * part.n)
  part.n = part.n + 1
  e[ROWS] = e[ROWS] + 1
  if not e.large then
    e.whole = true
    if part.n > MOST_ROWS then
      explode(e)
    end
    return
  end
  if part.n <= MOST_ROWS and not new then
    if part == e.tail then
      e.whole = true
    else
      touch(e, part)
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

-- What the changed parts of an entity and their directory have to write. Entries that stay in their places are written
-- each for itself, since the directory of a hot entity is long.
local function flush_parts(e, sets, ranges)
  local plan, pieces, at = e.plan, {}, 1
  local changed = {}
  for start, part in pairs(e.parts) do
    if part.dirty and start ~= e.tail.start then
      changed[#changed + 1] = start
    end
  end
  table.sort(changed)
  for _, start in ipairs(changed) do
    local part = e.parts[start]
    local place = plan.entry_bytes * (entries_until(e, start) - 1)
    local entry, n = entry_of(e, part), #ranges
    if e.directory_dirty then
      pieces[#pieces + 1] = sub(e.directory, at, place) .. entry
      at = place + plan.entry_bytes + 1
    else
      ranges[n + 1], ranges[n + 2], ranges[n + 3] = directory_key(e), place, entry
    end
    sets[#sets + 1] = part_key(e, start)
    sets[#sets + 1] = sub(part.rows, 1, plan.row * part.n) .. part.labels .. pack('<I4', part.n)
  end
  if e.directory_dirty then
    sets[#sets + 1] = directory_key(e)
    sets[#sets + 1] = concat(pieces) .. sub(e.directory, at)
  end
end

-- What an entity has to write: appends to `sets` (key, value, ...), `ranges` (key, offset, bytes, ...), `gone` (keys).
local function flush(e, sets, ranges, gone)
  local plan, tail = e.plan, e.tail
  if e.large then
    e[plan.tail_n], e[plan.tail_start], e[plan.tail_level] = tail.n + e.fresh_n, tail.start, tail.level
    flush_parts(e, sets, ranges)
  end
  flush_tail(e, sets, ranges)
  for _, key in ipairs(e.gone or NONE) do
    gone[#gone + 1] = key
  end
end
