-- The entries of an entity as packed rows: opened, searched, appended to, written. feature_parts.lua follows.
--
-- The client puts in front, made for one feature set: the library's header, the parameters, and the plans CUSTOMER and
-- TERMINAL. A plan says what a row of that entity holds (`row`: its bytes; `amount`, `ratio`, `flag`, `other`: where in
-- it, or nil), what the header keeps and at which place, whether labels stand with it, and its windows. Its functions,
-- made for the set as well, stand after features.lua.
--
-- Layout (little endian; docs/adr/0015-feature-sets-and-parts.md):
--   entity  rows, zeros up to a multiple of ROOM rows | labels | header
--   row     event time (6), id digest (8), then offset (6), amount (5), ratio (float32), unexplained (1), other entity (8)
--   label   event time (6), digest (8), labelled_at (6), code (1)
--   header  newest event time (6), rows (4), labels (4), profile, windows as of the newest row; last byte 1: in parts
-- Rows are in order of (event time, digest), labels in order of (event time, digest, labelled_at).
--
-- In a call an entity is a table: by number its header, by name
--   rows, n      a string that begins with its rows in order (what follows them is not looked at), and their number
--   fresh        rows appended in this call that are not among `rows` yet: `fresh_n` of them, the first of time fresh_t
--   labels       its label rows
--   tail         where rows and labels of the newest part stand: itself, unless it is kept in parts (`large`)
--   stored       number of rows that its string on the server begins with; `whole`: all of it must be written
-- Of the server's Lua: each string is hashed over all of its bytes when it is made, so long ones are made rarely.

-- Bound at the first call: a library that is being loaded sees none of these.
local pack, read, sub, byte, find, rep, format, floor, concat, unpack_list, call, clock

local LABEL_ROW = 21
local NEWEST, ROWS, LABELS = 1, 2, 3 -- places in the header
local LIMB = 2 ^ 50 -- sums of squares are kept as high * 2^50 + low
local MOST_FRESH = 32
local NONE = {}

local function bind()
  pack, read = struct.pack, struct.unpack
  sub, byte, find, rep, format = string.sub, string.byte, string.find, string.rep, string.format
  floor, concat, unpack_list, call, clock = math.floor, table.concat, unpack, redis.call, os.clock
  for _, plan in ipairs({ CUSTOMER, TERMINAL }) do
    plan.rooms, plan.spare, plan.small_formats, plan.large_formats = {}, {}, {}, {}
    for n = 0, ROOM - 1 do
      plan.rooms[n] = rep('\0', plan.row * n)
    end
    for n = 0, MOST_ROWS do -- a string of n rows and more, fresh rows, room, labels, header
      plan.small_formats[n] = format('<c%dc0c0c0', plan.row * n) .. plan.small_head
      plan.large_formats[n] = format('<c%dc0c0c0', plan.row * n) .. plan.large_head
    end
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
  local high = count_until(s, width, n, t)
  if high == 0 or read('<I6', s, width * (high - 1) + 1) < t then
    return high
  end
  local low = count_until(s, width, high - 1, t - 1)
  while low < high do -- among those of the same time
    local middle = floor((low + high) / 2)
    local at = width * middle + 1
    local order = compare(sub(s, at + 6, at + 13), digest)
    if order < 0 or (order == 0 and row and compare_rest(sub(s, at, at + width - 1), row) <= 0) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

-- ---------------------------------------------------------------- entities

-- The entity `name` in string `s` of `key` (false: none yet).
local function open_entity(plan, name, key, s)
  local spare = plan.spare
  local e = spare[#spare]
  if e then
    spare[#spare] = nil
  else
    e = plan.new()
    e.tail = e
  end
  e.name, e.key, e.dirty, e.whole, e.labels = name, key, false, not s, ''
  if not s then
    for i = 1, plan.small_fields do
      e[i] = 0
    end
    e.rows, e.n, e.stored = '', 0, 0
    return e
  end
  if byte(s, -1) == 0 then
    plan.read_small(e, s, #s - plan.small_bytes + 1)
    e.n = e[ROWS]
  else
    plan.read_large(e, s, #s - plan.large_bytes + 1)
    e.large, e.parts = true, {}
    e.n, e.start, e.level = e[plan.tail_n], e[plan.tail_start], e[plan.tail_level]
  end
  local n = e.n
  e.rows, e.stored = s, n
  if e[LABELS] > 0 then
    local at = plan.row * (n + (-n) % ROOM)
    e.labels = sub(s, at + 1, at + LABEL_ROW * e[LABELS])
  end
  return e
end

-- Keeps the tables of entities for the next call; to be called once they are written, for else they are in no order.
local function give_back(plan, entities)
  local spare = plan.spare
  for i = 1, #entities do
    local e = entities[i]
    if not e.large and not e.gone then
      e.fresh, e.fresh_n = '', 0
      e.rows, e.labels, e.name, e.key = '', '', '', ''
      spare[#spare + 1] = e
    end
  end
end

-- Puts the rows that were appended among the others; to be called, if there are any, before rows are read.
local function settle(e)
  local tail, rows = e.tail, e.tail.rows
  if #rows > e.plan.row * tail.n then
    rows = sub(rows, 1, e.plan.row * tail.n)
  end
  tail.rows = rows .. e.fresh
  tail.n = tail.n + e.fresh_n
  e.fresh, e.fresh_n = '', 0
end

-- Appends a row of event time t after all others of the tail.
local function append(e, t, row)
  if e.fresh_n == 0 then
    e.fresh, e.fresh_n, e.fresh_t = row, 1, t
  else
    e.fresh, e.fresh_n = e.fresh .. row, e.fresh_n + 1
    if e.fresh_n == MOST_FRESH then
      settle(e)
    end
  end
  e[ROWS] = e[ROWS] + 1
end

-- Appends what the entity's string must become: to `sets` (key, value, ...) or to `ranges` (key, offset, bytes, ...).
local function flush_tail(e, sets, ranges)
  local plan, tail, stored = e.plan, e.tail, e.stored
  local n = tail.n + e.fresh_n
  local pack_all, formats = plan.pack_small, plan.small_formats
  if e.large then
    pack_all, formats = plan.pack_large, plan.large_formats
  end
  local room = plan.rooms[(-n) % ROOM]
  e[LABELS] = #tail.labels / LABEL_ROW
  if e.whole or n + (-n) % ROOM ~= stored + (-stored) % ROOM then
    local rows, kept = tail.rows, tail.n -- the format takes so many rows, 0 all of the string
    if kept == 0 or kept > MOST_ROWS then
      rows, kept = sub(rows, 1, plan.row * kept), 0
    end
    local at = #sets
    sets[at + 1], sets[at + 2] = e.key, pack_all(formats[kept], rows, e.fresh, room, tail.labels, e)
  else
    local rows = tail.n > stored and sub(tail.rows, plan.row * stored + 1, plan.row * tail.n) or ''
    local at = #ranges
    ranges[at + 1], ranges[at + 2] = e.key, plan.row * stored
    ranges[at + 3] = pack_all(formats[0], rows, e.fresh, room, tail.labels, e)
  end
end
