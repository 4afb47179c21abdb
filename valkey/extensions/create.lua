do
-- The arguments of one execution, in their order; then its tags in pairs. NEW_LANE is
-- set when the caller does not know that the partition has executions of the lane.
local ID, NAMESPACE, LANE, KIND, PRIORITY, CREATOR, POLICY, PAYLOAD, ENCODING, REQUIRED = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
local DELAY_UNTIL, DELAY, DEADLINE_AT, DEADLINE, KEY, WINDOW, NEW_LANE, TAGS = 10, 11, 12, 13, 14, 15, 16, 17

-- The execution that the id or the idempotency key names already: its id and
-- public state. Those of the same call are in batch.
local function known(a, at, core, batch)
  local id = a[at + ID]
  local state = batch.states[id] or redis.call('HGET', core, 'public_state')
  if state then
    return id, state
  end
  local key = a[at + KEY]
  if key == '' then
    return
  end
  id = batch.keys[key]
  if id then
    return id, batch.states[id]
  end
  id = redis.call('GET', key)
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

-- What is written about one execution of a call, decided before anything is written:
-- its public state, its index, and until when it is held back.
local function plan(a, at, tag, now)
  local p = {at = at, tag = tag, public = 'waiting', deadline = instant(a[at + DEADLINE_AT], a[at + DEADLINE], now)}
  local due = instant(a[at + DELAY_UNTIL], a[at + DELAY], now)
  if due ~= '' and due > now then
    p.due, p.public = due, 'delayed'
  end
  p.index = lane_key(tag, a[at + LANE], p.due and 'delayed' or 'eligible')
  return p
end

-- Finds a key of another type than insert wants, so that it is not met half-way.
local function misfit(a, p, seen)
  local found
  local function want(kind, key)
    if not seen[key] then
      local is = redis.call('TYPE', key).ok
      seen[key] = true
      if is ~= 'none' and is ~= kind then
        found = redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. is .. ' instead of a ' .. kind)
      end
    end
  end
  local index = 'ff:idx:' .. p.tag
  want('set', index .. ':all_executions')
  want('zset', p.index)
  want('zset', 'ffx:idx:' .. p.tag .. ':created')
  want('set', 'ffx:idx:' .. p.tag .. ':lanes')
  want('zset', index .. ':execution_deadline')
  want('hash', base_of(p.tag, a[p.at + ID]) .. ':tags')
  return found
end

-- Writes an execution, its core last: with that it is there.
local function insert(a, p, now)
  local at, tag = p.at, p.tag
  local id, lane = a[at + ID], a[at + LANE]
  local base, optional, detail = base_of(tag, id), {}, ''
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
  set('execution_deadline_at', p.deadline)
  if p.due then
    set('delay_until', p.due)
    detail = 'delayed until ' .. string.format('%.0f', p.due)
  end
  redis.call('SADD', 'ff:idx:' .. tag .. ':all_executions', id)
  redis.call('ZADD', 'ffx:idx:' .. tag .. ':created', now, id)
  redis.call('ZADD', p.index, p.due or priority_score(now, a[at + PRIORITY]), id)
  if p.deadline ~= '' then
    redis.call('ZADD', 'ff:idx:' .. tag .. ':execution_deadline', p.deadline, id)
  end
  if a[at + PAYLOAD] ~= '' then
    redis.call('SET', base .. ':payload', a[at + PAYLOAD])
  end
  if a[at + POLICY] ~= '' then
    redis.call('SET', base .. ':policy', a[at + POLICY])
  end
  local tags = tonumber(a[at + TAGS])
  if tags > 0 then
    redis.call('HSET', base .. ':tags', unpack(a, at + TAGS + 1, at + TAGS + 2 * tags))
  end
  if a[at + KEY] ~= '' then
    -- A key lives through the millisecond in which it expires.
    redis.call('SET', a[at + KEY], id, 'PXAT', now + math.max(a[at + WINDOW] - 1, 1))
  end
  -- A small hash is searched from its beginning: what every transition touches comes
  -- first.
  redis.call('HSET', base .. ':core', 'lifecycle_phase', 'runnable', 'ownership_state', 'unowned',
    'eligibility_state', p.due and 'not_eligible_until_time' or 'eligible_now',
    'blocking_reason', p.due and 'waiting_for_delay' or 'waiting_for_worker', 'blocking_detail', detail, 'terminal_outcome', 'none',
    'attempt_state', 'pending_first_attempt', 'public_state', p.public, 'last_transition_at', now, 'last_mutation_at', now,
    'current_lease_epoch', '0', 'lane_id', lane, 'total_attempt_count', '0', 'lease_reclaim_count', '0', 'current_lane', lane,
    'created_at', now, 'priority', a[at + PRIORITY], 'has_policy', a[at + POLICY] ~= '' and '1' or '0', 'execution_id', id,
    'execution_kind', a[at + KIND], 'partition_id', string.match(tag, '%d+'), 'retry_count', '0', 'replay_count', '0', unpack(optional))
end

-- Tells who waits for the executions of a call: once for each lane, and the loops of
-- the engines of the first that will be due.
local function announce(a, planned)
  local due, woken
  for _, p in ipairs(planned) do
    if a[p.at + NEW_LANE] ~= '' then
      note_lane(p.tag, a[p.at + LANE])
    end
    if p.due then
      due = math.min(due or p.due, p.due)
    elseif woken ~= p.index then
      woken = p.index
      wake_lane(p.tag, a[p.at + LANE])
    end
  end
  if due then
    tell_due('delayed_promoter', due)
  end
end

-- ARGV: per execution the arguments above, the number of its tags, and these.
-- Answers per execution 1 when it is a duplicate or 0, the id, the public state.
-- Everything that may be refused comes before the first execution is written, so that
-- all are or none is: the keys that are read, the types of those that are written, and
-- the channels.
redis.register_function('ffx_create', function(_, a)
  local now, at, reply, planned, batch, seen = now_ms(), 1, {}, {}, {states = {}, keys = {}}, {}
  while at <= #a do
    local id, key = a[at + ID], a[at + KEY]
    local tag = tag_of(id)
    local there, public = known(a, at, base_of(tag, id) .. ':core', batch)
    reply[#reply + 1] = there and 1 or 0
    if not there then
      local p = plan(a, at, tag, now)
      planned[#planned + 1] = p
      there, public = id, p.public
      batch.states[id] = public
      if key ~= '' then
        batch.keys[key] = id
      end
    end
    reply[#reply + 1], reply[#reply + 2] = there, public
    at = at + TAGS + 1 + 2 * tonumber(a[at + TAGS])
  end
  -- One alone is whole as soon as it has its core.
  if #planned > 1 then
    for _, p in ipairs(planned) do
      local found = misfit(a, p, seen)
      if found then
        return found
      end
    end
  end
  announce(a, planned)
  for _, p in ipairs(planned) do
    insert(a, p, now)
  end
  return reply
end)
end
