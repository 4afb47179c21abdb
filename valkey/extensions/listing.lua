do
-- The public state by the state vector: what is blocked for other reasons than
-- budgets and quotas waits.
local BY_ELIGIBILITY = {eligible_now = 'waiting', not_eligible_until_time = 'delayed', blocked_by_dependencies = 'waiting_children',
  blocked_by_budget = 'rate_limited', blocked_by_quota = 'rate_limited'}
local function public_of(phase, eligibility, public)
  if phase == 'runnable' then
    return BY_ELIGIBILITY[eligibility] or 'waiting'
  end
  return public
end

-- Whether an execution is what a listing asks for. What cannot be read is not.
local function matches(tag, id, lane, kind, namespace, state)
  local v = redis.pcall('HMGET', base_of(tag, id) .. ':core', 'lane_id', 'execution_kind', 'namespace', 'lifecycle_phase',
    'eligibility_state', 'public_state')
  if v.err or not v[1] then
    return false
  end
  return (lane == '' or v[1] == lane) and (kind == '' or v[2] == kind) and (namespace == '' or v[3] == namespace)
    and (state == '' or public_of(v[4], v[5], v[6]) == state)
end

-- The rank at which a listing goes on after an entry, which may be gone.
local function rank_after(key, score, id, oldest)
  if score == '' then
    return 0
  end
  local rank = redis.call(oldest and 'ZRANK' or 'ZREVRANK', key, id)
  if rank then
    return rank + 1
  end
  rank = oldest and redis.call('ZCOUNT', key, '-inf', '(' .. score) or redis.call('ZCOUNT', key, '(' .. score, '+inf')
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', key, score, score)) do
    if (oldest and other < id) or (not oldest and other > id) then
      rank = rank + 1
    end
  end
  return rank
end

local SCANNED = 1000

-- KEYS: an index in the order of creation. ARGV: lane, kind, namespace, public
-- state, oldest or newest, the score and id to go on after, limit. Answers the
-- score and id up to which was looked, whether that is the end, and pairs of what
-- was found.
redis.register_function{function_name = 'ffx_list', flags = {'no-writes'}, callback = function(keys, a)
  local key, tag, oldest, limit = keys[1], tag_of(keys[1]), a[5] == 'oldest', tonumber(a[8])
  local rank, found, scanned, score, id = rank_after(key, a[6], a[7], oldest), {}, 0, a[6], a[7]
  while #found < 2 * limit and scanned < SCANNED do
    local chunk = oldest and redis.call('ZRANGE', key, rank, rank + 99, 'WITHSCORES') or redis.call('ZREVRANGE', key, rank, rank + 99, 'WITHSCORES')
    for i = 1, #chunk, 2 do
      id, score = chunk[i], chunk[i + 1]
      rank, scanned = rank + 1, scanned + 1
      if matches(tag, id, a[1], a[2], a[3], a[4]) then
        found[#found + 1], found[#found + 2] = score, id
        if #found >= 2 * limit then
          return {score, id, 0, found}
        end
      end
    end
    if #chunk < 200 then
      return {score, id, 1, found}
    end
  end
  return {score, id, 0, found}
end}

-- Which indexes of a lane have the executions of a public state.
local INDEXES = {waiting = {'eligible', 'blocked:route', 'blocked:operator'}, delayed = {'delayed'}, active = {'active'},
  suspended = {'suspended'}, waiting_children = {'blocked:dependencies'}, rate_limited = {'blocked:budget', 'blocked:quota'}}

-- KEYS: any of the partition. ARGV: lane or empty, kind, namespace, public state,
-- the most to gather. Answers pairs of score and id in no order; nil when there is
-- more than that, or when the state has no index of its own.
redis.register_function{function_name = 'ffx_gather', flags = {'no-writes'}, callback = function(keys, a)
  local tag, names, total, found = tag_of(keys[1]), INDEXES[a[4]], 0, {}
  if not names then
    return false
  end
  local lanes = a[1] ~= '' and {a[1]} or redis.call('SMEMBERS', 'ffx:idx:' .. tag .. ':lanes')
  for _, lane in ipairs(lanes) do
    for _, name in ipairs(names) do
      total = total + redis.call('ZCARD', lane_key(tag, lane, name))
    end
  end
  if total > tonumber(a[5]) then
    return false
  end
  for _, lane in ipairs(lanes) do
    for _, name in ipairs(names) do
      for _, id in ipairs(redis.call('ZRANGE', lane_key(tag, lane, name), 0, -1)) do
        local score = redis.call('ZSCORE', 'ffx:idx:' .. tag .. ':created', id)
        if score and matches(tag, id, a[1], a[2], a[3], a[4]) then
          found[#found + 1], found[#found + 2] = score, id
        end
      end
    end
  end
  return found
end}

-- KEYS: any of the partition. Answers whether the index by age has all executions,
-- as far as counts tell, and the lanes.
redis.register_function{function_name = 'ffx_places', flags = {'no-writes'}, callback = function(keys)
  local tag = tag_of(keys[1])
  local whole = redis.call('SCARD', 'ff:idx:' .. tag .. ':all_executions') == redis.call('ZCARD', 'ffx:idx:' .. tag .. ':created')
  return {whole and 1 or 0, redis.call('SMEMBERS', 'ffx:idx:' .. tag .. ':lanes')}
end}

-- When the execution that waits longest was created: the oldest of each priority
-- that there is, from the highest down.
local function oldest_waiting(tag, lane, now)
  local key, oldest, after = lane_key(tag, lane, 'eligible'), nil, '-inf'
  while true do
    local first = redis.call('ZRANGEBYSCORE', key, after, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if not first[1] then
      return oldest and string.format('%.0f', oldest) or ''
    end
    local priority = math.floor((now + 3600000 - tonumber(first[2])) / 1000000000000)
    local created = tonumber(first[2]) + priority * 1000000000000
    oldest = oldest and math.min(oldest, created) or created
    after = '(' .. string.format('%.0f', now + 3600000 - priority * 1000000000000)
  end
end

-- KEYS: any of the partition. Answers per lane its name, the size of each index,
-- of each outcome other than success, and when its longest waiting was created.
redis.register_function{function_name = 'ffx_counts', flags = {'no-writes'}, callback = function(keys)
  local tag, now, reply = tag_of(keys[1]), now_ms(), {}
  for _, lane in ipairs(redis.call('SMEMBERS', 'ffx:idx:' .. tag .. ':lanes')) do
    local row = {lane}
    for _, name in ipairs(LANE_INDEXES) do
      row[#row + 1] = redis.call('ZCARD', lane_key(tag, lane, name))
    end
    for _, outcome in ipairs(OUTCOMES) do
      row[#row + 1] = redis.call('ZCARD', outcome_key(tag, lane, outcome))
    end
    row[#row + 1] = oldest_waiting(tag, lane, now)
    reply[#reply + 1] = row
  end
  return reply
end}
end
