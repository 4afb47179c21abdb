do
-- Where an execution belongs by its state: the key of the index and its score.
local function place_of(tag, x)
  local home = home_of(x)
  if not home then
    return nil
  end
  local score = x.created_at
  if home == 'eligible' then
    score = score_of(x)
  elseif home == 'delayed' then
    score = x.delay_until
  elseif home == 'active' then
    score = x.lease_expires_at
  elseif home == 'terminal' then
    score = x.completed_at
  elseif home == 'suspended' then
    score = '9999999999999'
  end
  return lane_key(tag, x.lane_id, home), score
end

-- Has an execution that ended in the index of its outcome, and in no other, where
-- it may be from before a replay. Answers how much was wrong.
local function index_outcome(tag, lane, id, outcome, created_at, replayed)
  local changed = 0
  for _, o in ipairs(OUTCOMES) do
    if o == outcome then
      changed = changed + redis.call('ZADD', outcome_key(tag, lane, o), 'NX', created_at, id)
    elseif replayed then
      changed = changed + redis.call('ZREM', outcome_key(tag, lane, o), id)
    end
  end
  return changed
end

-- Puts one execution where it belongs and takes it from the other indexes of its
-- lane. Answers how much was wrong.
local function restore(tag, id)
  local x = load(base_of(tag, id) .. ':core')
  if not x then
    return redis.call('SREM', 'ff:idx:' .. tag .. ':all_executions', id) + redis.call('ZREM', 'ffx:idx:' .. tag .. ':created', id)
  end
  local changed = redis.call('ZADD', 'ffx:idx:' .. tag .. ':created', 'NX', x.created_at, id) + note_lane(tag, x.lane_id)
  local key, score = place_of(tag, x)
  if key and tonumber(score) then
    changed = changed + redis.call('ZADD', key, 'NX', score, id)
  end
  for _, name in ipairs(LANE_INDEXES) do
    local other = lane_key(tag, x.lane_id, name)
    if other ~= key then
      changed = changed + redis.call('ZREM', other, id)
    end
  end
  if is_lost(x) then
    changed = changed + redis.call('ZADD', lost_key(tag, x.lane_id), 'NX', score_of(x), id)
  else
    changed = changed + redis.call('ZREM', lost_key(tag, x.lane_id), id)
  end
  changed = changed + index_outcome(tag, x.lane_id, id, x.lifecycle_phase == 'terminal' and x.terminal_outcome or '', x.created_at, true)
  if changed > 0 and (is_waiting(x) or is_lost(x)) then
    wake_lane(tag, x.lane_id)
  end
  return changed
end

-- About how many commands one call makes, and how many restore does: others want the
-- server too.
local BUDGET, RESTORE = 1000, 20

-- A call goes on where the one before it stopped. What it needs for that is in s: the
-- step, the lanes that the step has yet to look at, and how far it is in a lane or in
-- an index. c is what one call knows.
local function try(c, f, ...)
  local good, n, more = pcall(f, ...)
  if not good then
    c.errors = c.errors + 1
    return false
  end
  c.repaired = c.repaired + n
  return more, true
end

-- Restores one. What cannot be read is noted by its age, so that it is not taken for
-- one that is missing for ever; listings leave it out.
local function restore_one(c, id)
  c.budget = c.budget - RESTORE
  local _, good = try(c, restore, c.tag, id)
  if not good then
    try(c, redis.call, 'ZADD', c.created, 'NX', c.now, id)
  end
end

-- The lane to look at; nil when the step has seen all.
local function next_lane(c, s)
  while #s.todo == 0 do
    if s.lanes == 'end' then
      return nil
    end
    local page = redis.call('SSCAN', c.lanes, s.lanes, 'COUNT', 20)
    s.lanes, s.todo = page[1] == '0' and 'end' or page[1], page[2]
  end
  return s.todo[#s.todo]
end

-- The lane is done with.
local function leave_lane(s)
  s.todo[#s.todo], s.cursor, s.passed = nil, '0', 0
end

local function go_to(s, step)
  s.at, s.lanes, s.todo, s.cursor, s.passed = step, '0', {}, '0', 0
end

-- Executions that ended without the extensions: a page of those that ended since
-- the last time. Answers how many, and whether there are more. s.passed counts those
-- of the page's first millisecond that were seen before.
local PAGE = 200
local function find_outcomes(c, s, lane)
  local from = tonumber(redis.call('HGET', c.marks, lane)) or 0
  local page = redis.call('ZRANGEBYSCORE', lane_key(c.tag, lane, 'terminal'), '(' .. string.format('%.0f', from), string.format('%.0f', c.now),
    'WITHSCORES', 'LIMIT', s.passed, PAGE)
  local found = 0
  for i = 1, #page, 2 do
    local v = redis.pcall('HMGET', base_of(c.tag, page[i]) .. ':core', 'terminal_outcome', 'created_at', 'replay_count')
    if tonumber(v[2]) and v[1] then
      found = found + index_outcome(c.tag, lane, page[i], v[1], v[2], (v[3] or '0') ~= '0')
    end
  end
  c.budget = c.budget - #page
  local full = #page == 2 * PAGE
  -- More may yet end in the millisecond of the last.
  local last = (full and tonumber(page[#page]) or c.now) - 1
  if last > from then
    redis.call('HSET', c.marks, lane, string.format('%.0f', last))
    s.passed = 0
  else
    s.passed = s.passed + PAGE
  end
  return found, full
end

-- How long a partition is not scanned again whose scan found nothing although the
-- counts disagree, in the same way: what cannot be read has no index.
local REST = 600000

-- Whether by counting anything is missing: every execution is in one index of its lane
-- and in the index by age.
local function is_incomplete(c, s)
  local all = redis.call('SCARD', c.all)
  s.missing = all - s.indexed .. ' ' .. all - redis.call('ZCARD', c.created)
  if s.missing == '0 0' then
    return false
  end
  local vain = redis.call('HMGET', c.marks, ':vain', ':vain_until')
  local left = number_or(vain[2], 0) - c.now
  return vain[1] ~= s.missing or left <= 0 or left > REST
end

local STEPS = {}

-- Counts what is in the indexes of the lanes, and finds who ended.
function STEPS.lanes(c, s)
  local lane = next_lane(c, s)
  if not lane then
    s.scan, s.found = is_incomplete(c, s), 0
    go_to(s, s.active > redis.call('ZCARD', c.expiry) and 'revoked' or 'created')
    return
  end
  if try(c, find_outcomes, c, s, lane) then
    return
  end
  for _, name in ipairs(LANE_INDEXES) do
    local n = redis.pcall('ZCARD', lane_key(c.tag, lane, name))
    if type(n) == 'number' then
      s.indexed = s.indexed + n
      s.active = s.active + (name == 'active' and n or 0)
    end
  end
  c.budget = c.budget - #LANE_INDEXES - 3
  leave_lane(s)
end

local function find_revoked_of(c, lane, id)
  if redis.call('ZSCORE', c.expiry, id) or redis.call('ZSCORE', lost_key(c.tag, lane), id) then
    return 0
  end
  c.budget = c.budget - 3
  local x = load(base_of(c.tag, id) .. ':core')
  return x and is_lost(x) and note_lost(c.tag, id, x) and 1 or 0
end

-- Executions that a peer has revoked: they are active and in no other index. Those
-- whose lease has lapsed are found by the sweep of leases.
function STEPS.revoked(c, s)
  local lane = next_lane(c, s)
  if not lane then
    return go_to(s, 'created')
  end
  local page = redis.pcall('ZSCAN', lane_key(c.tag, lane, 'active'), s.cursor, 'COUNT', 200)
  c.budget = c.budget - 1
  if page.err or page[1] == '0' then
    leave_lane(s)
  else
    s.cursor = page[1]
  end
  for i = 1, #(page[2] or {}), 2 do
    c.budget = c.budget - 2
    try(c, find_revoked_of, c, lane, page[2][i])
  end
end

-- The next page of an index that a scan looks at as a whole; otherwise of it one page
-- is looked at each time, and mark says which.
local function page_of(c, s, command, key, count, mark)
  local cursor = s.cursor
  if not s.scan then
    cursor = redis.call('HGET', c.marks, mark) or '0'
  end
  local page = redis.call(command, key, cursor, 'COUNT', count)
  c.budget = c.budget - 10
  return page[2], page[1], cursor
end

-- The page is done with. Answers whether it was the last.
local function leave_page(c, s, after, before, mark)
  if s.scan then
    s.cursor = after
    return after == '0'
  end
  if after ~= before then
    redis.call('HSET', c.marks, mark, after)
  end
  return true
end

-- Forgets an execution that a peer has deleted. Nothing says any more which was its
-- lane.
local function forget(c, id)
  c.names = c.names or redis.call('SMEMBERS', c.lanes)
  redis.call('ZREM', 'ffx:idx:' .. c.tag .. ':retention', id)
  redis.call('ZREM', 'ffx:idx:' .. c.tag .. ':grants', id)
  for _, lane in ipairs(c.names) do
    redis.call('ZREM', lost_key(c.tag, lane), id)
    index_outcome(c.tag, lane, id, '', 0, true)
  end
  redis.call('UNLINK', 'ffx:exec:' .. c.tag .. ':' .. id .. ':events')
  c.budget = c.budget - 4 - 5 * #c.names
  return redis.call('ZREM', c.created, id)
end

-- Looks for what is in the index by age but is gone.
function STEPS.created(c, s)
  local page, after, before = page_of(c, s, 'ZSCAN', c.created, 200, ':created')
  local ids = {}
  for i = 1, #page, 2 do
    ids[#ids + 1] = page[i]
  end
  local there = #ids > 0 and redis.call('SMISMEMBER', c.all, unpack(ids)) or {}
  for i, id in ipairs(ids) do
    if there[i] == 0 then
      if c.budget <= 0 then
        return -- the rest of the page is for the next call
      end
      try(c, forget, c, id)
    end
  end
  if leave_page(c, s, after, before, ':created') then
    go_to(s, not s.ages and 'executions' or nil)
  end
end

-- Restores executions.
function STEPS.executions(c, s)
  local page, after, before = page_of(c, s, 'SSCAN', c.all, 50, ':scan')
  local repaired = c.repaired
  for _, id in ipairs(page) do
    restore_one(c, id)
  end
  s.found = s.found + c.repaired - repaired
  if not leave_page(c, s, after, before, ':scan') then
    return
  end
  if s.scan and s.found == 0 then
    redis.call('HSET', c.marks, ':vain', s.missing, ':vain_until', c.now + REST)
  end
  go_to(s, nil)
end

-- Restores the executions that are missing in the index by age.
function STEPS.ages(c, s)
  local page = redis.call('SSCAN', c.all, s.cursor, 'COUNT', 500)
  local scores = #page[2] > 0 and redis.call('ZMSCORE', c.created, unpack(page[2])) or {}
  c.budget = c.budget - 50
  for i, id in ipairs(page[2]) do
    if not scores[i] then
      if c.budget <= 0 then
        return -- the rest of the page is for the next call
      end
      restore_one(c, id)
    end
  end
  s.cursor = page[1]
  if page[1] == '0' then
    go_to(s, 'created')
  end
end

-- KEYS: any of the partition. ARGV: where to go on, empty at first, then 'ages' for
-- the index by age alone, which listings read. Repairs what peers without the
-- extensions leave undone and what was lost. Answers now, how much was repaired, how
-- many executions could not be read, and where to go on, 0 at the end. When the counts
-- say that nothing is missing one page of the executions is looked at, each time
-- another; otherwise all are.
redis.register_function('ffx_reconcile', function(keys, a)
  local tag = tag_of(keys[1])
  local c = {tag = tag, now = now_ms(), budget = BUDGET, repaired = 0, errors = 0, all = 'ff:idx:' .. tag .. ':all_executions',
    expiry = 'ff:idx:' .. tag .. ':lease_expiry', created = 'ffx:idx:' .. tag .. ':created', lanes = 'ffx:idx:' .. tag .. ':lanes',
    marks = 'ffx:idx:' .. tag .. ':reconciled'}
  local s
  if a[1] ~= '' then
    s = cjson.decode(a[1])
  else
    s = {indexed = 0, active = 0, ages = a[2] == 'ages', scan = a[2] == 'ages'}
    go_to(s, redis.call('EXISTS', c.all, c.created, c.lanes) > 0 and (s.ages and 'ages' or 'lanes') or nil)
  end
  while s.at and c.budget > 0 do
    STEPS[s.at](c, s)
  end
  return {c.now, c.repaired, c.errors, s.at and cjson.encode(s) or '0'}
end)
end
