do
-- The arguments of one execution, in their order; then its tags in pairs. NEW_LANE is
-- set when the caller does not know that the partition has executions of the lane.
local ID, NAMESPACE, LANE, KIND, PRIORITY, CREATOR, POLICY, PAYLOAD, ENCODING, REQUIRED = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
local DELAY_UNTIL, DELAY, DEADLINE_AT, DEADLINE, KEY, WINDOW, NEW_LANE, TAGS = 10, 11, 12, 13, 14, 15, 16, 17

-- The execution that the id or the idempotency key names already: its id and
-- public state.
local function known(a, at, core)
  local state = redis.call('HGET', core, 'public_state')
  if state then
    return a[at + ID], state
  end
  local key = a[at + KEY]
  local id = key ~= '' and redis.call('GET', key)
  if id then
    state = redis.call('HGET', base_of(tag_of(id), id) .. ':core', 'public_state')
    if state then
      return id, state
    end
  end
end

-- The instant at which something relative or absolute falls, '' when neither is
-- given; the earlier when both are.
local function instant(at, after, now)
  if after == '' then
    return at ~= '' and tonumber(at) or ''
  end
  after = now + after
  return at ~= '' and math.min(tonumber(at), after) or after
end

local function insert(a, at, core, now)
  local id, lane = a[at + ID], a[at + LANE]
  local tag = tag_of(id)
  local due, deadline = instant(a[at + DELAY_UNTIL], a[at + DELAY], now), instant(a[at + DEADLINE_AT], a[at + DEADLINE], now)
  local delayed = due ~= '' and due > now
  local public = delayed and 'delayed' or 'waiting'
  local optional, detail = {}, ''
  local function set(name, value)
    if value ~= '' then
      optional[#optional + 1] = name
      optional[#optional + 1] = value
    end
  end
  set('namespace', a[at + NAMESPACE])
  set('creator_identity', a[at + CREATOR])
  set('payload_encoding', a[at + ENCODING])
  set('required_capabilities', a[at + REQUIRED])
  set('execution_deadline_at', deadline)
  if delayed then
    set('delay_until', due)
    detail = 'delayed until ' .. string.format('%.0f', due)
  end
  -- A small hash is searched from its beginning: what every transition touches comes
  -- first.
  redis.call('HSET', core, 'lifecycle_phase', 'runnable', 'ownership_state', 'unowned',
    'eligibility_state', delayed and 'not_eligible_until_time' or 'eligible_now',
    'blocking_reason', delayed and 'waiting_for_delay' or 'waiting_for_worker', 'blocking_detail', detail, 'terminal_outcome', 'none',
    'attempt_state', 'pending_first_attempt', 'public_state', public, 'last_transition_at', now, 'last_mutation_at', now,
    'current_lease_epoch', '0', 'lane_id', lane, 'total_attempt_count', '0', 'lease_reclaim_count', '0', 'current_lane', lane,
    'created_at', now, 'priority', a[at + PRIORITY], 'has_policy', a[at + POLICY] ~= '' and '1' or '0', 'execution_id', id,
    'execution_kind', a[at + KIND], 'partition_id', string.match(tag, '%d+'), 'retry_count', '0', 'replay_count', '0', unpack(optional))
  if a[at + PAYLOAD] ~= '' then
    redis.call('SET', base_of(tag, id) .. ':payload', a[at + PAYLOAD])
  end
  if a[at + POLICY] ~= '' then
    redis.call('SET', base_of(tag, id) .. ':policy', a[at + POLICY])
  end
  redis.call('SADD', 'ff:idx:' .. tag .. ':all_executions', id)
  redis.call('ZADD', 'ffx:idx:' .. tag .. ':created', now, id)
  if a[at + NEW_LANE] ~= '' then
    note_lane(tag, lane)
  end
  if deadline ~= '' then
    redis.call('ZADD', 'ff:idx:' .. tag .. ':execution_deadline', deadline, id)
  end
  if a[at + KEY] ~= '' then
    -- A key lives through the millisecond in which it expires.
    redis.call('SET', a[at + KEY], id, 'PXAT', now + math.max(a[at + WINDOW] - 1, 1))
  end
  if delayed then
    redis.call('ZADD', lane_key(tag, lane, 'delayed'), due, id)
    tell_due('delayed_promoter', due)
  else
    redis.call('ZADD', lane_key(tag, lane, 'eligible'), priority_score(now, a[at + PRIORITY]), id)
    wake_lane(tag, lane)
  end
  return id, public
end

-- ARGV: per execution the arguments above, the number of its tags, and these.
-- Answers per execution 1 when it is a duplicate or 0, the id, the public state.
redis.register_function('ffx_create', function(_, a)
  local now, at, reply = now_ms(), 1, {}
  while at <= #a do
    local core = base_of(tag_of(a[at + ID]), a[at + ID]) .. ':core'
    local tags = tonumber(a[at + TAGS])
    local id, public = known(a, at, core)
    local duplicate = id and 1 or 0
    if not id then
      id, public = insert(a, at, core, now)
      if tags > 0 then
        redis.call('HSET', base_of(tag_of(id), id) .. ':tags', unpack(a, at + TAGS + 1, at + TAGS + 2 * tags))
      end
    end
    reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = duplicate, id, public
    at = at + TAGS + 1 + 2 * tags
  end
  return reply
end)
end
