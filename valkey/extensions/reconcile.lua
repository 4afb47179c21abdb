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

-- Puts one execution where it belongs. Answers whether anything was missing.
local function restore(tag, id)
  local x = load(base_of(tag, id) .. ':core')
  if not x then
    redis.call('SREM', 'ff:idx:' .. tag .. ':all_executions', id)
    redis.call('ZREM', 'ffx:idx:' .. tag .. ':created', id)
    return true
  end
  local changed = redis.call('ZADD', 'ffx:idx:' .. tag .. ':created', 'NX', x.created_at, id)
  changed = changed + redis.call('SADD', 'ffx:idx:' .. tag .. ':lanes', x.lane_id)
  local key, score = place_of(tag, x)
  if key and tonumber(score) then
    changed = changed + redis.call('ZADD', key, 'NX', score, id)
  end
  if changed > 0 and is_waiting(x) then
    wake_lane(tag, x.lane_id)
  end
  return changed > 0
end

local INDEXES = {'eligible', 'delayed', 'active', 'terminal', 'suspended', 'blocked:dependencies', 'blocked:budget', 'blocked:quota',
  'blocked:route', 'blocked:operator'}

-- Whether every execution of the partition is in one index of its lane and in the
-- index by age, by counting.
local function complete_by_count(tag, lanes)
  local all, indexed = redis.call('SCARD', 'ff:idx:' .. tag .. ':all_executions'), 0
  for _, lane in ipairs(lanes) do
    for _, name in ipairs(INDEXES) do
      indexed = indexed + redis.call('ZCARD', lane_key(tag, lane, name))
    end
  end
  return all == indexed and all == redis.call('ZCARD', 'ffx:idx:' .. tag .. ':created')
end

-- Executions whose lease was lost without the extensions having seen it: by a
-- revocation or a mark of the compatible functions.
local function find_lost(try, tag, lane, now)
  local found = 0
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', lane_key(tag, lane, 'active'), '-inf', now, 'LIMIT', 0, 1000)) do
    found = found + try(function()
      local x = load(base_of(tag, id) .. ':core')
      return x and is_lost(x) and redis.call('ZADD', lost_key(tag, lane), 'NX', score_of(x), id)
    end)
  end
  if found > 0 then
    wake_lane(tag, lane)
  end
end

local UNSUCCESSFUL = {failed = true, cancelled = true, expired = true, skipped = true}

-- Executions that ended otherwise than by success without the extensions.
local function find_outcomes(try, tag, lane, since, now)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', lane_key(tag, lane, 'terminal'), since, now, 'LIMIT', 0, 2000)) do
    try(function()
      local v = redis.call('HMGET', base_of(tag, id) .. ':core', 'terminal_outcome', 'created_at')
      return v[2] and UNSUCCESSFUL[v[1]] and redis.call('ZADD', 'ffx:idx:' .. tag .. ':lane:' .. lane .. ':outcome:' .. v[1], 'NX', v[2], id)
    end)
  end
end

-- KEYS: any of the partition. ARGV: the instant since which ends are looked at, the
-- cursor of the scan of all executions, then the lanes that are known. Repairs what
-- peers without the extensions leave undone and what was lost. Answers now, how
-- much was repaired, how many executions could not be read, and the cursor to go on
-- with, 0 when all was seen or the counts say that nothing is missing.
redis.register_function('ffx_reconcile', function(keys, a)
  local now, tag, repaired, errors = now_ms(), tag_of(keys[1]), 0, 0
  for i = 3, #a do
    local present = {}
    for j, name in ipairs(INDEXES) do
      present[j] = lane_key(tag, a[i], name)
    end
    if redis.call('EXISTS', unpack(present)) > 0 then
      repaired = repaired + redis.call('SADD', 'ffx:idx:' .. tag .. ':lanes', a[i])
    end
  end
  local lanes = redis.call('SMEMBERS', 'ffx:idx:' .. tag .. ':lanes')
  -- An execution that cannot be read keeps nothing from the others.
  local function try(f, ...)
    local good, n = pcall(f, ...)
    n = good and (n == true and 1 or n) or 0
    errors, repaired = errors + (good and 0 or 1), repaired + n
    return n
  end
  for _, lane in ipairs(lanes) do
    find_lost(try, tag, lane, now)
    find_outcomes(try, tag, lane, a[1], now)
  end
  if a[2] == '0' and complete_by_count(tag, lanes) then
    return {now, repaired, errors, '0'}
  end
  local page = redis.call('SSCAN', 'ff:idx:' .. tag .. ':all_executions', a[2], 'COUNT', 500)
  for _, id in ipairs(page[2]) do
    try(restore, tag, id)
  end
  return {now, repaired, errors, page[1]}
end)
end
