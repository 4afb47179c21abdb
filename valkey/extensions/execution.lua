-- KEYS: the core. ARGV: id, reason, source, lease id, epoch, attempt id. Answers
-- the phase before.
redis.register_function('ffx_cancel', function(keys, a)
  local now, tag, id, x = now_ms(), tag_of(keys[1]), a[1], load_holder(keys[1])
  local base = base_of(tag, id)
  if not x then
    return err('execution_not_found')
  end
  if x.lifecycle_phase == 'terminal' then
    if x.terminal_outcome == 'cancelled' and own_earlier(x, a[5], a[6]) then
      return ok('terminal')
    end
    return not_active(x)
  end
  local source = a[3]
  if a[4] ~= '' then
    local refused = check_holder(tag, base, id, x, a[4], a[5], a[6], '', now)
    if refused then
      return refused
    end
    source = source ~= '' and source or 'worker'
  end
  if x.lifecycle_phase == 'suspended' then
    abandon_suspension(tag, base, id, now, 'cancelled')
  end
  end_open_attempt(tag, id, x, 'ended_cancelled', now, 'cancelled: ' .. a[2], '')
  finish(tag, base, id, x, now, 'cancelled', a[2], 'cancellation_reason', a[2], 'cancelled_by', source ~= '' and source or 'operator_override')
  return ok(x.lifecycle_phase)
end)

-- KEYS: the core. ARGV: id, priority. Answers the priorities before and after.
redis.register_function('ffx_change_priority', function(keys, a)
  local now, tag, x = now_ms(), tag_of(keys[1]), load_holder(keys[1])
  if not x then
    return err('execution_not_found')
  end
  if not (x.lifecycle_phase == 'runnable' and x.eligibility_state == 'eligible_now') then
    return err('execution_not_eligible', 'the execution is ' .. (x.public_state or '') .. ', not waiting for a worker')
  end
  local before, priority = x.priority or '0', math.min(math.max(assert(tonumber(a[2])), 0), 9000)
  redis.call('HSET', keys[1], 'priority', priority, 'last_mutation_at', now)
  x.priority = priority
  redis.call('ZADD', lane_key(tag, x.lane_id, 'eligible'), score_of(x), a[1])
  return ok(before, priority)
end)

-- KEYS: the core, the tags. ARGV: the limit of tags, then pairs. Answers all tags.
redis.register_function('ffx_set_tags', function(keys, a)
  local now = now_ms()
  if redis.call('EXISTS', keys[1]) == 0 then
    return err('execution_not_found')
  end
  local count = redis.call('HLEN', keys[2])
  for i = 2, #a, 2 do
    count = count + 1 - redis.call('HEXISTS', keys[2], a[i])
  end
  if count > tonumber(a[1]) then
    return err('invalid_input', 'more than ' .. a[1] .. ' tags (got ' .. count .. ')')
  end
  redis.call('HSET', keys[2], unpack(a, 2))
  redis.call('HSET', keys[1], 'last_mutation_at', now)
  return ok(redis.call('HGETALL', keys[2]))
end)

-- KEYS: the core. ARGV: id, reason, requested by, 1 when an input follows, the
-- input. A skipped member of a flow is replayed by the compatible function.
redis.register_function('ffx_replay', function(keys, a)
  local now, tag, id, x = now_ms(), tag_of(keys[1]), a[1], load(keys[1])
  local base = base_of(tag, id)
  if not x then
    return err('execution_not_found')
  end
  if x.lifecycle_phase ~= 'terminal' then
    return err('execution_not_terminal', 'the execution is ' .. (x.public_state or ''))
  end
  local policy = policy_of(policy_text(base, x))
  local count, limit = number_or(x.replay_count, 0), number_or(policy.max_replay_count, 10)
  if count >= limit then
    return err('max_replays_exhausted', count .. ' of ' .. limit .. ' replays are used')
  end
  if x.terminal_outcome == 'skipped' and x.flow_id then
    return ok('use_compatible')
  end
  local relative = number_or(member(policy, 'timeout_policy').execution_deadline_ms, 0)
  local deadline = relative > 0 and now + relative or ''
  redis.call('ZREM', lane_key(tag, x.lane_id, 'terminal'), id)
  redis.call('ZREM', 'ffx:idx:' .. tag .. ':retention', id)
  redis.call('ZREM', 'ffx:idx:' .. tag .. ':lane:' .. x.lane_id .. ':outcome:' .. (x.terminal_outcome or ''), id)
  set_state(keys[1], now, 'runnable', 'unowned', 'eligible_now', 'waiting_for_worker', '', 'none', 'pending_replay_attempt', 'waiting',
    'replay_count', count + 1, 'pending_replay_attempt', '1', 'pending_replay_reason', a[2], 'pending_replay_requested_by', a[3],
    'pending_previous_attempt_index', number_or(x.total_attempt_count, 0) - 1, 'completed_at', '', 'delay_until', '',
    'execution_deadline_at', deadline, 'cancellation_reason', '', 'cancelled_by', '', 'lease_expired_at', '',
    'lease_revoked_at', '', 'lease_revoke_reason', '')
  if deadline ~= '' then
    redis.call('ZADD', 'ff:idx:' .. tag .. ':execution_deadline', deadline, id)
  end
  redis.call('DEL', base .. ':result')
  if a[4] == '1' then
    if a[5] == '' then
      redis.call('DEL', base .. ':payload')
    else
      redis.call('SET', base .. ':payload', a[5])
    end
  end
  redis.call('ZADD', lane_key(tag, x.lane_id, 'eligible'), score_of(x), id)
  emit(tag, id, now, 'replay_initiated', nil, nil, nil, x.current_attempt_index, nil, nil, 'normal', nil, x.flow_id)
  wake_lane(tag, x.lane_id)
  return ok('replayed')
end)

-- Adds what only an index has: the timeout of a suspension, and until when a peer has
-- held back what it resumed.
local function add_indexed(tag, base, id, values)
  local v = redis.call('HMGET', base .. ':core', 'lifecycle_phase', 'blocking_reason', 'lane_id')
  if v[1] == 'suspended' then
    append(values, 'suspension_timeout_at', redis.call('ZSCORE', 'ff:idx:' .. tag .. ':suspension_timeout', id) or '')
  elseif v[2] == 'waiting_for_resume_delay' then
    append(values, 'delay_until', redis.call('ZSCORE', lane_key(tag, v[3] or '', 'delayed'), id) or '')
  end
end

-- What the store makes the record of an execution of.
local function describe(tag, id)
  local base = base_of(tag, id)
  local _, values = load(base .. ':core')
  if not values then
    return false
  end
  add_indexed(tag, base, id, values)
  local index = redis.call('HGET', base .. ':core', 'current_attempt_index')
  local attempt = is_set(index) and redis.call('HGETALL', 'ff:attempt:' .. tag .. ':' .. id .. ':' .. index) or {}
  return {values, redis.call('GET', base .. ':policy') or '', redis.call('HGETALL', base .. ':tags'), attempt,
    redis.call('HGETALL', base .. ':claim_grant'), redis.call('ZSCORE', 'ff:idx:' .. tag .. ':execution_deadline', id) or '',
    redis.call('ZSCORE', 'ff:idx:' .. tag .. ':attempt_timeout', id) or ''}
end

-- KEYS: the core of the first. ARGV: ids of one partition. Answers per id what its
-- record is made of; nil when it does not exist, a text when it cannot be read.
redis.register_function{function_name = 'ffx_read', flags = {'no-writes'}, callback = function(_, a)
  local replies = {}
  for i, id in ipairs(a) do
    local good, reply = pcall(describe, tag_of(id), id)
    if not good then
      reply = type(reply) == 'table' and reply.err or tostring(reply)
    end
    replies[i] = reply
  end
  return replies
end}
