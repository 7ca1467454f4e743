-- The calls: marks and replies around the features, one call a batch. The last part of the library.
--
-- BLOB is MessagePack: [meta, topic id, customers, terminals, sections]. Customers and terminals are the names in it, each
-- once. A section is an array of columns: 1 partition, 2 previous offset, 3 last offset, 4 committed offset, 5 offsets,
-- 6 and 7 places of the customer and the terminal among the names, 8 event times, 9 amounts, 10 digests in one string,
-- 11 and 12 the digests of customers and terminals in one string each (empty where no feature needs them).
-- KEYS: 1 what all other keys begin with (seq: last apply_seq, m: marks, r: replies, c: customers, t: terminals),
-- 2 meta, which must be as it was at connect.
-- A reply: offset, apply_seq, duplicate_of (8 bytes each), flags (4), the features as float32.
-- A call stops early when its time is over: marks then stand where it stopped, and the same call again goes on from there.
-- Nothing is written before everything is computed. What then is written cannot fail, and the server logs it as one
-- transaction: whole values in one MSET; the ends of values to which a row was appended; what expired.

local REPLY_BYTES = 28 + 4 * FEATURES
local MOST_ARGUMENTS = 4000 -- of one command: Lua's stack holds 8,000 values
local TIMED_EVERY = 32 -- so many transactions or labels are applied between looks at the clock, if none is `costly`
local KEYS_AT_ONCE = 100 -- to read: the values of one MGET then still lie in the processor's cache
local proven = {} -- prefixes that were proven to be whole since this server process began; forgotten with it

-- Writes key, value, key, value, ...; above MOST_ARGUMENTS the server still logs all of a call as one transaction.
local function set_all(pairs_list)
  for from = 1, #pairs_list, MOST_ARGUMENTS do
    local till = from + MOST_ARGUMENTS - 1
    call('MSET', unpack_list(pairs_list, from, till < #pairs_list and till or #pairs_list))
  end
end

local function offset_text(value)
  return format('%.0f', value)
end

-- Reads meta, the sequence, marks and replies of the sections; says what is wrong, or nil. `seen`: the last apply_seq
-- that the caller was told.
local function open(keys, meta, topic, sections, seen)
  local tag = keys[1]
  local found = call('MGET', keys[2], tag .. 'seq')
  local seq = tonumber(found[2] or '0')
  if found[1] ~= meta then
    return nil, 'REPLACED the state is another than at connect'
  elseif not proven[tag] then
    return nil, 'UNPROVEN the server began anew'
  elseif seq < tonumber(seen or '0') then
    return nil, 'ROLLED_BACK ' .. offset_text(seq)
  end
  for _, section in ipairs(sections) do
    section.mark_key = tag .. 'm:' .. topic .. ':' .. section[1]
    section.reply_key = tag .. 'r:' .. topic .. ':' .. section[1]
    local mark, replies = unpack_list(call('MGET', section.mark_key, section.reply_key))
    section.mark, section.replies = tonumber(mark or '-1'), replies or ''
    if section[2] > section.mark then
      return nil, format('BEHIND %s %s', offset_text(section[1]), offset_text(section.mark))
    end
  end
  return seq
end

-- Position in `replies` (records of REPLY_BYTES, rising offsets) of the first record with an offset > limit.
local function reply_after(replies, limit)
  local low, high = 0, #replies / REPLY_BYTES
  while low < high do
    local middle = floor((low + high) / 2)
    if read('<i8', replies, middle * REPLY_BYTES + 1) <= limit then
      low = middle + 1
    else
      high = middle
    end
  end
  return low * REPLY_BYTES + 1
end

-- Appends the stored replies of offsets up to the mark to `out`; returns their number, or what is missing.
local function answer_again(section, out)
  local offsets, replies = section[5], section.replies
  local at = reply_after(replies, section[2])
  local n = 0
  while n < #offsets and offsets[n + 1] <= section.mark do
    while at < #replies and read('<i8', replies, at) < offsets[n + 1] do
      at = at + REPLY_BYTES
    end
    if at > #replies or read('<i8', replies, at) ~= offsets[n + 1] then
      return nil, format('GONE %s %s', offset_text(section[1]), offset_text(offsets[n + 1]))
    end
    out[#out + 1] = sub(replies, at, at + REPLY_BYTES - 1)
    at = at + REPLY_BYTES
    n = n + 1
  end
  return n
end

-- The entities of these names, in their order.
local function load_entities(plan, prefix, names)
  local entities, keys = {}, {}
  plan.prefix = prefix -- of the keys of parts as well
  for i = 1, #names do
    keys[i] = prefix .. ':' .. names[i]
  end
  for from = 1, #keys, KEYS_AT_ONCE do
    local till = from + KEYS_AT_ONCE - 1
    till = till < #keys and till or #keys
    local values = call('MGET', unpack_list(keys, from, till))
    for i = from, till do
      entities[i] = open_entity(plan, names[i], keys[i], values[i - from + 1])
    end
  end
  return entities
end

-- Lets the time of a call begin: what it brings was read, which it would be again if it stopped.
local function start_timer(timer)
  timer.stop = clock() + timer.ms / 1000 -- in seconds of the server's CPU time
end

-- Whether a call must end before it applies the n-th record more: never before it has applied some.
local function is_over(timer, n)
  if not timer.over and (n % TIMED_EVERY == 0 or costly) and timer.applied + n > 0 then
    timer.over, costly = clock() > timer.stop, false
  end
  return timer.over
end

-- Applies the new transactions of one section to the entities; returns the sequence and their replies (none if `quiet`).
local function compute(section, customers, terminals, seq, timer, quiet)
  local offsets, customer_of, terminal_of = section[5], section[6], section[7]
  local times, amounts, digests = section[8], section[9], section[10]
  local customer_digests, terminal_digests = section[11], section[12]
  local replies = {}
  local previous, last, start = section.mark, section[3], section.known + 1
  for i = start, #offsets do
    local offset, digest = offsets[i], sub(digests, 8 * i - 7, 8 * i)
    if offset <= previous or offset > last or #digest ~= 8 then
      error('offsets must rise up to the last one of the batch, each with a digest')
    end
    if ((i - start) % TIMED_EVERY == 0 or costly) and is_over(timer, i - start) then
      section[3] = previous
      break
    end
    previous = offset
    local customer_digest, terminal_digest
    if customer_digests ~= '' then
      customer_digest, terminal_digest = sub(customer_digests, 8 * i - 7, 8 * i), sub(terminal_digests, 8 * i - 7, 8 * i)
    end
    local flags, duplicate_of = apply_one(customers[customer_of[i]], terminals[terminal_of[i]], times[i], digest,
      amounts[i], offset, customer_digest, terminal_digest, quiet)
    if not quiet then
      seq = seq + 1
      replies[#replies + 1] = pack_reply(offset, seq, duplicate_of, flags)
    end
  end
  timer.applied = timer.applied + #offsets - section.known
  return seq, concat(replies)
end

-- Writes what the entities have changed, after `sets` (key, value, ...).
local function write_all(customers, terminals, sets)
  local ranges, gone = {}, {}
  for _, entities in ipairs({ customers, terminals }) do
    for i = 1, #entities do
      if entities[i].dirty then
        flush(entities[i], sets, ranges, gone)
      end
    end
  end
  for from = 1, #gone, MOST_ARGUMENTS do
    local till = from + MOST_ARGUMENTS - 1
    call('UNLINK', unpack_list(gone, from, till < #gone and till or #gone))
  end
  set_all(sets)
  for i = 1, #ranges, 3 do
    call('SETRANGE', ranges[i], ranges[i + 1], ranges[i + 2])
  end
  give_back(CUSTOMER, customers)
  give_back(TERMINAL, terminals)
end

-- Number of the first offsets that are not above the mark: they were applied before.
local function known_until(offsets, mark)
  local known = 0
  while known < #offsets and offsets[known + 1] <= mark do
    known = known + 1
  end
  return known
end

-- Puts the section's new mark and the replies to keep into `writes`, if the call goes beyond the mark.
local function move_mark(section, replies, writes)
  if section[3] > section.mark then
    local n = #writes
    writes[n + 1], writes[n + 2] = section.mark_key, offset_text(section[3])
    writes[n + 3], writes[n + 4] = section.reply_key, replies
  end
end

-- What the call brings, read and held against the state: sequence, sections, names of customers and of terminals, and its
-- time; or nil and what is wrong.
local function begin(keys, args)
  if not pack then
    bind()
  end
  local timer = { ms = tonumber(args[3]) or 0, applied = 0, over = false }
  local meta, topic, customers, terminals, sections = unpack_list(cmsgpack.unpack(args[1]))
  local seq, wrong = open(keys, meta, topic, sections, args[2])
  return seq, seq and sections or wrong, customers, terminals, timer
end

-- Loads the entities of a call's transactions, unless all of them were applied before.
local function load_both(tag, sections, customers, terminals)
  local new = 0
  for _, section in ipairs(sections) do
    new = new + #section[5] - section.known
  end
  if new == 0 then
    return NONE, NONE
  end
  return load_entities(CUSTOMER, tag .. 'c', customers), TERMINAL.used and load_entities(TERMINAL, tag .. 't', terminals) or NONE
end

-- FCALL apply_<library> 2 PREFIX META BLOB SEEN MS: see FeatureStore.apply. Returns whether it came to the end within MS
-- milliseconds (1 or 0), the replies in order and, for each section, how many of them are repeated.
local function apply(keys, args)
  local seq, sections, customer_names, terminal_names, timer = begin(keys, args)
  if not seq then
    return redis.error_reply(sections)
  end
  local repeated, tag = {}, keys[1]
  for i, section in ipairs(sections) do
    local wrong
    section.again = {}
    section.known, wrong = answer_again(section, section.again)
    if wrong then
      return redis.error_reply(wrong)
    end
    repeated[i] = section.known
  end

  local customers, terminals = load_both(tag, sections, customer_names, terminal_names)
  start_timer(timer)
  local answers, writes = {}, {}
  for _, section in ipairs(sections) do
    local fresh
    seq, fresh = compute(section, customers, terminals, seq, timer, false)
    answers[#answers + 1] = concat(section.again) .. fresh
    move_mark(section, sub(section.replies, reply_after(section.replies, section[4])) .. fresh, writes)
  end
  if #writes > 0 then
    writes[#writes + 1] = tag .. 'seq'
    writes[#writes + 1] = offset_text(seq)
    write_all(customers, terminals, writes)
  end
  return { timer.over and 0 or 1, concat(answers), unpack_list(repeated) }
end

-- FCALL label_<library> 2 PREFIX META BLOB SEEN MS: see FeatureStore.apply_labels. Returns whether it came to the end, and
-- how many labels were new.
local function label(keys, args)
  local seq, sections, customer_names, terminal_names, timer = begin(keys, args)
  if not seq then
    return redis.error_reply(sections)
  end
  local section, tag = sections[1], keys[1]
  if section[3] <= section.mark then
    return { 1, 0 }
  end
  local offsets, customer_of, terminal_of, times, digests, labelled_at, codes = unpack_list(section, 5, 11)
  local known, new = known_until(offsets, section.mark), 0
  local customers = CUSTOMER.labels and load_entities(CUSTOMER, tag .. 'c', customer_names) or NONE
  local terminals = TERMINAL.labels and load_entities(TERMINAL, tag .. 't', terminal_names) or NONE
  start_timer(timer)
  for i = known + 1, #offsets do
    local digest = sub(digests, 8 * i - 7, 8 * i)
    if #digest ~= 8 then
      error('each label needs a digest')
    end
    if is_over(timer, i - known - 1) then
      section[3] = offsets[i - 1]
      break
    end
    new = new + 1
    if CUSTOMER.labels then
      apply_label(customers[customer_of[i]], times[i], digest, labelled_at[i], codes[i])
    end
    if TERMINAL.labels then
      apply_label(terminals[terminal_of[i]], times[i], digest, labelled_at[i], codes[i])
    end
  end
  write_all(customers, terminals, { section.mark_key, offset_text(section[3]) })
  return { timer.over and 0 or 1, new }
end

-- FCALL fold_<library> 2 PREFIX META BLOB SEEN MS: applies what the group has committed before, for a rebuild; nobody waits
-- for replies, so none are kept and no places are given out. Returns whether it came to the end, and how many were new.
local function fold(keys, args)
  local seq, sections, customer_names, terminal_names, timer = begin(keys, args)
  if not seq then
    return redis.error_reply(sections)
  end
  for _, section in ipairs(sections) do
    section.known = known_until(section[5], section.mark)
  end
  local customers, terminals = load_both(keys[1], sections, customer_names, terminal_names)
  start_timer(timer)
  local writes, new = {}, 0
  for _, section in ipairs(sections) do
    compute(section, customers, terminals, seq, timer, true)
    new = new + known_until(section[5], section[3]) - section.known
    move_mark(section, '', writes)
  end
  write_all(customers, terminals, writes)
  return { timer.over and 0 or 1, new }
end

-- FCALL change_<library> 2 PREFIX META EXPECTED NEW PROVEN LEAST PROCESS: makes META of EXPECTED ('': none) to NEW, if it
-- still is EXPECTED and the server the process of that run id ('': any). PROVEN 1: the state at PREFIX is whole, calls may
-- come; the next apply_seq is above LEAST. Returns 0 or 1.
local function change(keys, args)
  if not pack then
    bind()
  end
  local tag, expected, new, least = keys[1], args[1], args[2], tonumber(args[4])
  if (call('GET', keys[2]) or '') ~= expected then
    return 0
  end
  if args[5] ~= '' and not find(call('INFO', 'server'), 'run_id:' .. args[5], 1, true) then
    return 0
  end
  local writes = {}
  if new ~= expected then
    writes = { keys[2], new }
  end
  if (new ~= expected or not proven[tag]) and least > tonumber(call('GET', tag .. 'seq') or '0') then
    writes[#writes + 1] = tag .. 'seq'
    writes[#writes + 1] = offset_text(least)
  end
  set_all(writes)
  proven[tag] = proven[tag] or args[3] == '1'
  return 1
end

-- FCALL lease_<library> 1 KEY TOKEN MS: keeps a lease that is still TOKEN's for MS longer, 0 ends it. Returns 0 or 1.
local function lease(keys, args)
  if redis.call('GET', keys[1]) ~= args[1] then
    return 0
  end
  if args[2] == '0' then
    return redis.call('DEL', keys[1])
  end
  return redis.call('PEXPIRE', keys[1], args[2])
end

-- FCALL forget_<library> 1 META EXPECTED KEY: deletes a key of a former state, if META still is EXPECTED. Returns 0 or 1.
local function forget(keys, args)
  if redis.call('GET', keys[1]) ~= args[1] then
    return 0
  end
  return redis.call('UNLINK', args[2])
end

redis.register_function('apply_' .. LIBRARY, apply)
redis.register_function('label_' .. LIBRARY, label)
redis.register_function('fold_' .. LIBRARY, fold)
redis.register_function('change_' .. LIBRARY, change)
redis.register_function('lease_' .. LIBRARY, lease)
redis.register_function('forget_' .. LIBRARY, forget)
