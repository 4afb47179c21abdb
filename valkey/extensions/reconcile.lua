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

local INDEXES = {'eligible', 'delayed', 'active', 'terminal', 'suspended', 'blocked:dependencies', 'blocked:budget', 'blocked:quota',
  'blocked:route', 'blocked:operator'}
local OUTCOMES = {'failed', 'cancelled', 'expired', 'skipped'}

local function outcome_key(tag, lane, outcome)
  return 'ffx:idx:' .. tag .. ':lane:' .. lane .. ':outcome:' .. outcome
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

-- Puts one execution where it belongs and takes it from where it does not. Answers
-- how much was wrong.
local function restore(tag, id, lanes)
  local x = load(base_of(tag, id) .. ':core')
  if not x then
    return redis.call('SREM', 'ff:idx:' .. tag .. ':all_executions', id) + redis.call('ZREM', 'ffx:idx:' .. tag .. ':created', id)
  end
  local changed = redis.call('ZADD', 'ffx:idx:' .. tag .. ':created', 'NX', x.created_at, id)
  if redis.call('SADD', 'ffx:idx:' .. tag .. ':lanes', x.lane_id) == 1 then
    lanes[#lanes + 1], changed = x.lane_id, changed + 1
  end
  local key, score = place_of(tag, x)
  if key and tonumber(score) then
    changed = changed + redis.call('ZADD', key, 'NX', score, id)
  end
  for _, lane in ipairs(lanes) do
    for _, name in ipairs(INDEXES) do
      local other = lane_key(tag, lane, name)
      if other ~= key then
        changed = changed + redis.call('ZREM', other, id)
      end
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

-- Forgets executions that peers have deleted.
local function forget_deleted(tag, lanes)
  local gone = redis.call('ZDIFF', 2, 'ffx:idx:' .. tag .. ':created', 'ff:idx:' .. tag .. ':all_executions')
  for i = 1, math.min(#gone, 5000) do
    local id = gone[i]
    redis.call('ZREM', 'ffx:idx:' .. tag .. ':created', id)
    redis.call('ZREM', 'ffx:idx:' .. tag .. ':retention', id)
    redis.call('ZREM', 'ffx:idx:' .. tag .. ':grants', id)
    for _, lane in ipairs(lanes) do
      redis.call('ZREM', lost_key(tag, lane), id)
      index_outcome(tag, lane, id, '', 0, true)
    end
    redis.call('UNLINK', 'ffx:exec:' .. tag .. ':' .. id .. ':events')
  end
  return #gone
end

-- Whether by counting every execution of the partition is in one index of its lane
-- and in the index by age.
local function complete_by_count(tag, lanes)
  local all, indexed = redis.call('SCARD', 'ff:idx:' .. tag .. ':all_executions'), 0
  for _, lane in ipairs(lanes) do
    for _, name in ipairs(INDEXES) do
      indexed = indexed + redis.call('ZCARD', lane_key(tag, lane, name))
    end
  end
  return all == indexed and all == redis.call('ZCARD', 'ffx:idx:' .. tag .. ':created')
end

-- Executions that a peer has revoked: they are active and in no other index. Those
-- whose lease has lapsed are found by the sweep of leases.
local function find_revoked(tag, lanes)
  local active, found = 0, 0
  for _, lane in ipairs(lanes) do
    active = active + redis.call('ZCARD', lane_key(tag, lane, 'active'))
  end
  if active <= redis.call('ZCARD', 'ff:idx:' .. tag .. ':lease_expiry') then
    return 0
  end
  for _, lane in ipairs(lanes) do
    for _, id in ipairs(redis.call('ZDIFF', 3, lane_key(tag, lane, 'active'), 'ff:idx:' .. tag .. ':lease_expiry', lost_key(tag, lane))) do
      local x = load(base_of(tag, id) .. ':core')
      if x and is_lost(x) and note_lost(tag, id, x) then
        found = found + 1
      end
    end
  end
  return found
end

-- Executions that ended without the extensions: a page of those that ended since
-- the last time. Answers how many, and whether there are more.
local PAGE = 2000
local function find_outcomes(tag, lane, now)
  local marks = 'ffx:idx:' .. tag .. ':reconciled'
  local from = tonumber(redis.call('HGET', marks, lane)) or 0
  local page = redis.call('ZRANGEBYSCORE', lane_key(tag, lane, 'terminal'), '(' .. string.format('%.0f', from), string.format('%.0f', now),
    'WITHSCORES', 'LIMIT', 0, PAGE)
  local found = 0
  for i = 1, #page, 2 do
    local v = redis.call('HMGET', base_of(tag, page[i]) .. ':core', 'terminal_outcome', 'created_at', 'replay_count')
    if v[1] and v[2] then
      found = found + index_outcome(tag, lane, page[i], v[1], v[2], (v[3] or '0') ~= '0')
    end
  end
  -- More may yet end in the millisecond of the last.
  local full = #page == 2 * PAGE
  local last = full and tonumber(page[#page]) - 1 or now - 1
  redis.call('HSET', marks, lane, string.format('%.0f', math.max(last, full and from + 1 or from)))
  return found, full
end

-- KEYS: any of the partition. ARGV: where to go on, empty at first, then the lanes
-- that are known. Repairs what peers without the extensions leave undone and what
-- was lost. Answers now, how much was repaired, how many executions could not be
-- read, and where to go on, 0 at the end. All executions are scanned; when the counts
-- say that nothing is missing only one page of them is, each time another.
redis.register_function('ffx_reconcile', function(keys, a)
  local now, tag, repaired, errors = now_ms(), tag_of(keys[1]), 0, 0
  local lanes_key, marks, at = 'ffx:idx:' .. tag .. ':lanes', 'ffx:idx:' .. tag .. ':reconciled', a[1]
  local function try(f, ...)
    local good, n, more = pcall(f, ...)
    if not good then
      errors = errors + 1
      return false
    end
    repaired = repaired + n
    return more
  end
  for i = 2, #a do
    local present = {}
    for j, name in ipairs(INDEXES) do
      present[j] = lane_key(tag, a[i], name)
    end
    if redis.call('EXISTS', unpack(present)) > 0 then
      repaired = repaired + redis.call('SADD', lanes_key, a[i])
    end
  end
  local lanes, scan = redis.call('SMEMBERS', lanes_key), true
  if at == '' then
    try(find_revoked, tag, lanes)
    local more = false
    for _, lane in ipairs(lanes) do
      more = try(find_outcomes, tag, lane, now) or more
    end
    if more then
      return {now, repaired, errors, ''}
    end
    try(forget_deleted, tag, lanes)
    scan = not complete_by_count(tag, lanes)
    at = scan and '0' or redis.call('HGET', marks, ':scan') or '0'
  end
  local page = redis.call('SSCAN', 'ff:idx:' .. tag .. ':all_executions', at, 'COUNT', 500)
  for _, id in ipairs(page[2]) do
    try(restore, tag, id, lanes)
  end
  if scan then
    return {now, repaired, errors, page[1]}
  end
  if page[1] ~= at then
    redis.call('HSET', marks, ':scan', page[1])
  end
  return {now, repaired, errors, '0'}
end)
end
