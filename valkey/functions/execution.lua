-- The life of an execution: creation, what its holder does with it, and its ends.
do

-- What is wrong with a capability token, if anything is.
local function token_fault(token)
  if type(token) ~= 'string' then
    return 'non_string_token'
  elseif token == '' then
    return 'empty_token'
  elseif string.find(token, ',', 1, true) then
    return 'comma_in_token'
  elseif string.find(token, '[%z\1-\32\127]') then
    return 'control_or_whitespace'
  end
end

-- A list of capabilities, sorted and joined with commas, or nil and what is wrong.
local function join_capabilities(list)
  if type(list) ~= 'table' then
    return nil, 'required:not_array'
  end
  local tokens = {}
  for i, token in ipairs(list) do
    local fault = token_fault(token)
    if fault then
      return nil, 'required:' .. fault
    end
    tokens[i] = token
  end
  if #tokens > 256 then
    return nil, 'required:too_many_tokens'
  end
  table.sort(tokens)
  local csv = table.concat(tokens, ',')
  if #csv > 4096 then
    return nil, 'required:too_many_bytes'
  end
  return csv
end

-- The capabilities a policy requires, '' for none; nil and the reply that refuses it.
local function required_capabilities(policy_json)
  if not is_set(policy_json) or policy_json == '{}' then
    return ''
  end
  local policy = decode(policy_json)
  if policy == nil then
    return nil, err('invalid_policy_json', 'malformed')
  end
  if type(policy) ~= 'table' or policy.routing_requirements == nil then
    return ''
  end
  if type(policy.routing_requirements) ~= 'table' then
    return nil, err('invalid_policy_json', 'routing_requirements:not_object')
  end
  if policy.routing_requirements.required_capabilities == nil then
    return ''
  end
  local csv, fault = join_capabilities(policy.routing_requirements.required_capabilities)
  if not csv then
    return nil, err('invalid_capabilities', fault)
  end
  return csv
end

-- A JSON object as a flat list of names and texts; empty for anything else.
local function flat_tags(json)
  local list = {}
  local tags = is_set(json) and decode(json)
  if type(tags) == 'table' then
    for name, value in pairs(tags) do
      append(list, tostring(name), tostring(value))
    end
  end
  return list
end

-- The index of a new execution. The caller chose one by its own clock, but the
-- server's decides, else the execution would be lost.
local function first_index(key, delayed)
  if delayed then
    return (string.gsub(key, ':eligible$', ':delayed'))
  end
  return (string.gsub(key, ':delayed$', ':eligible'))
end

-- c is what is known of a new execution before anything is written, or nil and the
-- reply instead, which is a refusal or tells of the duplicate.
local function check_create(keys, args)
  local priority, bad = number_arg(args[5], 'priority')
  if not priority then
    return nil, bad
  end
  local c = {now = now_ms()}
  if keys[6] ~= '' and not string.find(keys[6], 'ff:noop:', 1, true) then
    c.idempotency_key = keys[6]
  end
  local first = c.idempotency_key and redis.call('GET', c.idempotency_key)
    or redis.call('EXISTS', keys[1]) == 1 and args[1]
  if first then
    return nil, {1, 'DUPLICATE', first}
  end
  c.capabilities, bad = required_capabilities(args[7])
  if not c.capabilities then
    return nil, bad
  end
  c.delay_until = is_set(args[9]) and tonumber(args[9]) or 0
  if is_set(args[9]) and not tonumber(args[9]) then
    return nil, refuse('delay_until', args[9])
  elseif is_set(args[12]) and not tonumber(args[12]) then
    return nil, refuse('execution_deadline_at', args[12])
  elseif priority ~= priority then
    return nil, refuse('priority', args[5])
  end
  c.priority = clamp_priority(priority)
  c.delayed = c.delay_until > c.now
  return c
end

local function write_core(core, args, c)
  local eligibility, reason, detail, public = 'eligible_now', 'waiting_for_worker', '', 'waiting'
  if c.delayed then
    eligibility, reason, public = 'not_eligible_until_time', 'waiting_for_delay', 'delayed'
    detail = 'delayed until ' .. args[9]
  end
  redis.call('HSET', core, 'execution_id', args[1], 'namespace', args[2], 'lane_id', args[3],
    'execution_kind', args[4], 'partition_id', args[13] or '', 'priority', c.priority,
    'creator_identity', args[6], 'total_attempt_count', '0', 'current_attempt_index', '',
    'current_attempt_id', '', 'current_lease_epoch', '0', 'current_lane', args[3],
    'retry_count', '0', 'replay_count', '0', 'lease_reclaim_count', '0', 'created_at', c.now,
    'started_at', '', 'completed_at', '', 'lease_acquired_at', '',
    'delay_until', c.delayed and args[9] or '', 'current_suspension_id', '', 'current_waitpoint_id', '',
    'pending_retry_reason', '', 'pending_replay_reason', '', 'pending_replay_requested_by', '',
    'pending_previous_attempt_index', '', 'progress_pct', '', 'progress_message', '',
    'progress_updated_at', '', 'flow_id', '',
    without_lease(without_lease_marks(
      queued(c.now, eligibility, reason, detail, 'pending_first_attempt', public))))
  if c.capabilities ~= '' then
    redis.call('HSET', core, 'required_capabilities', c.capabilities)
  end
end

-- Wakes workers for what was created by somebody who knows nothing of marks. Where
-- the lane had no executions there is no mark: they are told when any listen.
local function wake_for_created(tag, lane)
  if redis.call('SISMEMBER', 'ffx:idx:' .. tag .. ':lanes', lane) == 0 and redis.call('PUBSUB', 'NUMSUB', 'ffx:wake')[2] > 0 then
    redis.call('PUBLISH', 'ffx:wake', tag .. lane)
  else
    wake_lane(tag, lane)
  end
end

redis.register_function('ff_create_execution', function(keys, args)
  local c, reply = check_create(keys, args)
  if not c then
    return reply
  end
  local core, id = keys[1], args[1]
  write_core(core, args, c)
  if is_set(args[8]) then
    redis.call('SET', keys[2], args[8])
  end
  if is_set(args[7]) then
    redis.call('SET', keys[3], args[7])
  end
  hset_all(keys[4], flat_tags(args[11]))
  redis.call('ZADD', first_index(keys[5], c.delayed),
    c.delayed and c.delay_until or priority_score(c.now, c.priority), id)
  redis.call('SADD', keys[8], id)
  if is_set(args[12]) then
    redis.call('ZADD', keys[7], args[12], id)
  end
  local dedup_ttl = math.floor(number_of(args[10]))
  if dedup_ttl > 0 and c.idempotency_key then
    redis.call('SET', c.idempotency_key, id, 'PX', dedup_ttl)
  end
  if c.delayed then
    return ok(id, 'delayed')
  end
  wake_for_created(tag_of(core), args[3])
  return ok(id, 'waiting')
end)

-- The core of an execution for its holder, who sends the fence as arguments 2 to 4,
-- and the time; nil and the reply that refuses.
local function open_held(core, history, args, source, ...)
  local now = now_ms()
  local x = read_holder(core, ...)
  if not x then
    return nil, err('execution_not_found')
  end
  local refused = check_fence(core, history, x, args[2], args[3], args[4], source == 'operator_override', now)
  if refused then
    return nil, refused
  end
  return x, now
end

-- The keys of the current attempt and holder, which a caller may know from too long
-- ago; those the caller sent serve when the core has none.
local function current_keys(core, id, x, attempt, stream, leases)
  if is_set(x.current_attempt_index) then
    attempt = attempt_key(core, id, x.current_attempt_index)
    stream = stream_meta_key(core, id, x.current_attempt_index)
  end
  if is_set(x.current_worker_instance_id) then
    leases = worker_leases_key(tag_of(core), x.current_worker_instance_id)
  end
  return attempt, stream, leases
end

-- Takes an execution out of everything a running lease put it in.
local function drop_lease(id, lease, expiry, leases, active, timeout)
  redis.call('DEL', lease)
  redis.call('ZREM', expiry, id)
  redis.call('SREM', leases, id)
  redis.call('ZREM', active, id)
  redis.call('ZREM', timeout, id)
end

local function log_release(history, x, reason, now)
  add_history(history, 'released', 'lease_id', x.current_lease_id or '', 'lease_epoch', x.current_lease_epoch or '',
    'attempt_index', x.current_attempt_index or '', 'reason', reason, 'ts', now)
end

redis.register_function('ff_complete_execution', function(keys, args)
  local core, history, id = keys[1], keys[7], args[1]
  local x, now = open_held(core, history, args, args[6], 'flow_id')
  if not x then
    return now
  end
  local attempt, stream, leases = current_keys(core, id, x, keys[2], keys[9], keys[4])
  redis.call('HSET', attempt, 'attempt_state', 'ended_success', 'ended_at', now)
  close_stream(stream, 'attempt_success', now)
  if is_set(args[5]) then
    redis.call('SET', keys[10], args[5])
  end
  redis.call('HSET', core,
    without_lease(without_lease_marks(ended(now, 'success', 'attempt_terminal', 'completed'))))
  drop_lease(id, keys[6], keys[3], leases, keys[8], keys[11])
  redis.call('ZREM', keys[12], id)
  redis.call('ZADD', keys[5], now, id)
  log_release(history, x, 'completed', now)
  publish_completion(x.flow_id, id, 'success')
  return ok('completed')
end)

-- The holder puts its execution back to wait for something; the attempt goes on later.
-- Both functions share the order of keys 1 to 9.
local function park(keys, args, x, now, why, ...)
  local core, id = keys[1], args[1]
  redis.call('HSET', core, without_lease(...))
  local attempt, _, leases = current_keys(core, id, x, keys[2], nil, keys[6])
  redis.call('HSET', attempt, 'attempt_state', 'suspended', 'suspended_at', now, 'suspension_id', why)
  drop_lease(id, keys[3], keys[5], leases, keys[7], keys[9])
  add_history(keys[4], 'released', 'lease_id', x.current_lease_id, 'lease_epoch', x.current_lease_epoch,
    'attempt_index', x.current_attempt_index or '', 'attempt_id', x.current_attempt_id, 'reason', why, 'ts', now)
end

redis.register_function('ff_delay_execution', function(keys, args)
  local x, now = open_held(keys[1], keys[4], args, args[6])
  if not x then
    return now
  end
  local due = args[5]
  if not tonumber(due) then
    return refuse('delay_until', due)
  end
  park(keys, args, x, now, 'worker_delay', 'delay_until', due,
    queued(now, 'not_eligible_until_time', 'waiting_for_delay', 'delayed until ' .. due, 'attempt_interrupted', 'delayed'))
  redis.call('ZADD', keys[8], due, args[1])
  return ok(due)
end)

redis.register_function('ff_move_to_waiting_children', function(keys, args)
  local x, now = open_held(keys[1], keys[4], args, args[5], 'created_at')
  if not x then
    return now
  end
  park(keys, args, x, now, 'waiting_children',
    queued(now, 'blocked_by_dependencies', 'waiting_for_children', 'waiting for child executions to complete',
      'attempt_interrupted', 'waiting_children'))
  redis.call('ZADD', keys[8], number_of(x.created_at), args[1])
  return ok()
end)

-- How long to wait before the next attempt, in whole milliseconds; nil when the policy
-- makes no sense.
local function backoff_of(policy, retries)
  local b = policy.backoff
  if b == cjson.null then
    return nil
  end
  local function setting(name, default)
    if b[name] == nil then
      return default
    end
    return tonumber(b[name])
  end
  if type(b) ~= 'table' then
    return 1000
  elseif b.type == 'fixed' then
    local delay = setting('delay_ms', 1000)
    return delay and math.floor(delay)
  elseif b.type == 'exponential' then
    local initial, factor, limit = setting('initial_delay_ms', 1000), setting('multiplier', 2), setting('max_delay_ms', 60000)
    return initial and factor and limit and math.floor(math.min(initial * factor ^ retries, limit))
  end
  return 1000
end

-- The backoff before a retry, or nil when there is none; then, for a policy that makes
-- no sense, the reply that refuses it.
local function retry_backoff(policy_json, retries)
  local policy = is_set(policy_json) and decode(policy_json)
  if type(policy) ~= 'table' then
    return nil
  end
  local max = policy.max_retries == nil and 0 or tonumber(policy.max_retries)
  if not max then
    return nil, refuse('max_retries', policy.max_retries)
  elseif retries >= max then
    return nil
  end
  local backoff = backoff_of(policy, retries)
  if not backoff then
    return nil, refuse('backoff', policy_json)
  end
  return backoff
end

-- The retry policy kept with an execution, for a caller that sends none.
local function stored_retry_policy(core)
  local policy = decode(redis.call('GET', (string.gsub(core, ':core$', ':policy'))) or '')
  local retry = type(policy) == 'table' and policy.retry_policy
  return type(retry) == 'table' and cjson.encode(retry) or ''
end

local function schedule_retry(keys, x, id, reason, due, now)
  local index = is_set(x.current_attempt_index) and x.current_attempt_index or '0'
  redis.call('HSET', keys[1], 'pending_retry_reason', reason, 'pending_previous_attempt_index', index,
    'retry_count', number_of(x.retry_count) + 1, 'current_attempt_id', '', 'delay_until', due, 'failure_reason', reason,
    without_lease(queued(now, 'not_eligible_until_time', 'waiting_for_retry_backoff',
      'retry backoff until ' .. due .. ' (attempt ' .. index .. ' failed: ' .. reason .. ')',
      'pending_retry_attempt', 'delayed')))
  redis.call('ZADD', keys[6], due, id)
  log_release(keys[8], x, 'failed_retry_scheduled', now)
end

local function fail_for_good(keys, x, id, reason, now)
  redis.call('HSET', keys[1], 'failure_reason', reason,
    without_lease(ended(now, 'failed', 'attempt_terminal', 'failed')))
  redis.call('ZREM', keys[12], id)
  redis.call('ZADD', keys[5], now, id)
  log_release(keys[8], x, 'failed_terminal', now)
  publish_completion(x.flow_id, id, 'failed')
end

redis.register_function('ff_fail_execution', function(keys, args)
  local core, id, reason = keys[1], args[1], args[5] or ''
  local x, now = open_held(core, keys[8], args, args[8], 'retry_count', 'flow_id')
  if not x then
    return now
  end
  local backoff, bad = retry_backoff(args[7] or stored_retry_policy(core), number_of(x.retry_count))
  if bad then
    return bad
  end
  local attempt, stream, leases = current_keys(core, id, x, keys[2], keys[10], keys[4])
  redis.call('HSET', attempt, 'attempt_state', 'ended_failure', 'ended_at', now,
    'failure_reason', reason, 'failure_category', args[6] or '')
  close_stream(stream, 'attempt_failure', now)
  drop_lease(id, keys[7], keys[3], leases, keys[9], keys[11])
  if not backoff then
    fail_for_good(keys, x, id, reason, now)
    return ok('terminal_failed')
  end
  schedule_retry(keys, x, id, reason, now + backoff, now)
  return ok('retry_scheduled', tostring(now + backoff))
end)

-- Closes a waitpoint and its condition, as far as they exist.
local function close_waitpoint(tag, waitpoint_id, reason, now)
  local key = 'ff:wp:' .. tag .. ':' .. waitpoint_id
  if redis.call('EXISTS', key) == 1 then
    redis.call('HSET', key, 'state', 'closed', 'closed_at', now, 'close_reason', reason)
  end
  if redis.call('EXISTS', key .. ':condition') == 1 then
    redis.call('HSET', key .. ':condition', 'closed', '1', 'closed_at', now, 'closed_reason', reason)
  end
end

-- Closes what a suspended execution waits for.
local function close_suspension(suspension, tag, waitpoint_id, reason, now)
  local extra = redis.call('HGET', suspension, 'additional_waitpoints_json')
  if redis.call('EXISTS', suspension) == 1 then
    redis.call('HSET', suspension, 'closed_at', now, 'close_reason', reason)
  end
  if is_set(waitpoint_id) then
    close_waitpoint(tag, waitpoint_id, reason, now)
  end
  local list = is_set(extra) and decode(extra)
  for _, waitpoint in ipairs(type(list) == 'table' and list or {}) do
    if type(waitpoint) == 'table' and is_set(waitpoint.waitpoint_id) then
      close_waitpoint(tag, waitpoint.waitpoint_id, reason, now)
    end
  end
  redis.call('DEL', suspension .. ':satisfied_set', suspension .. ':satisfied_set:signals', suspension .. ':member_map')
end

-- nil when the execution may be cancelled by this caller, else the reply that refuses.
local function refuse_cancel(x, source, lease_id, epoch)
  if x.lifecycle_phase == 'terminal' then
    return not_active(x)
  elseif x.lifecycle_phase ~= 'active' or source == 'operator_override' then
    return nil
  elseif x.ownership_state == 'lease_revoked' then
    return err('lease_revoked')
  elseif is_set(lease_id) and (x.current_lease_id ~= lease_id or x.current_lease_epoch ~= epoch) then
    return err('stale_lease')
  end
end

-- The state of the attempt of an execution that ends without its holder.
local function last_attempt_state(x)
  return is_set(x.current_attempt_index) and 'attempt_terminal' or x.attempt_state or 'none'
end

local function lane_of(x)
  return is_set(x.lane_id) and x.lane_id or is_set(x.current_lane) and x.current_lane or 'default'
end

redis.register_function('ff_cancel_execution', function(keys, args)
  local core, id, reason, source = keys[1], args[1], args[2], args[3] or ''
  if not reason then
    return refuse('reason', nil)
  end
  local now = now_ms()
  local x = read_holder(core, 'attempt_state', 'lane_id', 'current_waitpoint_id', 'flow_id')
  if not x then
    return err('execution_not_found')
  end
  local refused = refuse_cancel(x, source, args[4], args[5])
  if refused then
    return refused
  end

  local phase, tag = x.lifecycle_phase, tag_of(core)
  local attempt, stream, leases = current_keys(core, id, x, keys[2], keys[3], keys[7])
  if (phase == 'active' or phase == 'suspended') and is_set(x.current_attempt_index) then
    redis.call('HSET', attempt, 'attempt_state', 'ended_cancelled', 'ended_at', now,
      'failure_reason', 'cancelled: ' .. reason)
    close_stream(stream, 'attempt_cancelled', now)
  else
    wake_tails(tag, id)
  end
  if phase == 'active' then
    redis.call('DEL', keys[4])
    log_release(keys[5], x, 'cancelled', now)
  elseif phase == 'suspended' then
    close_suspension(keys[8], tag, x.current_waitpoint_id, 'cancelled', now)
  end
  redis.call('HSET', core, 'cancellation_reason', reason, 'cancelled_by', source ~= '' and source or id,
    'current_suspension_id', '', 'current_waitpoint_id', '',
    without_lease(ended(now, 'cancelled', last_attempt_state(x), 'cancelled')))

  -- Wherever it was, it is there no more.
  local lane = is_set(x.lane_id) and x.lane_id or 'default'
  redis.call('ZREM', lane_key(tag, lane, 'active'), id)
  redis.call('ZREM', lane_key(tag, lane, 'suspended'), id)
  redis.call('ZREM', keys[6], id)
  redis.call('ZREM', keys[11], id)
  for i = 13, 21 do
    redis.call('ZREM', keys[i], id)
  end
  redis.call('SREM', leases, id)
  redis.call('ZADD', keys[12], now, id)
  if source ~= 'flow_cascade' then
    publish_completion(x.flow_id, id, 'cancelled')
  end
  return ok('cancelled', phase or '')
end)

-- The blocked part of a lane or its plain index, by eligibility.
local waiting_index = {
  eligible_now = 'eligible', not_eligible_until_time = 'delayed',
  blocked_by_dependencies = 'blocked:dependencies', blocked_by_budget = 'blocked:budget',
  blocked_by_quota = 'blocked:quota', blocked_by_route = 'blocked:route',
  blocked_by_operator = 'blocked:operator',
}

local function leave_queue(tag, x, id)
  local lane, index = lane_of(x), waiting_index[x.eligibility_state]
  if index then
    redis.call('ZREM', lane_key(tag, lane, index), id)
    return
  end
  for _, any in pairs(waiting_index) do
    redis.call('ZREM', lane_key(tag, lane, any), id)
  end
end

-- What expiry does to the attempt, the lease or the suspension that is under way.
local function stop_for_expiry(keys, x, id, reason, now)
  local core = keys[1]
  local attempt, stream, leases = current_keys(core, id, x, keys[2], keys[3], keys[7])
  if is_set(x.current_attempt_index) then
    redis.call('HSET', attempt, 'attempt_state', 'ended_failure', 'ended_at', now, 'failure_reason', reason)
  end
  close_stream(stream, 'expired', now)
  if x.lifecycle_phase == 'active' then
    redis.call('DEL', keys[4])
    redis.call('ZREM', keys[6], id)
    redis.call('SREM', leases, id)
    redis.call('ZREM', keys[8], id)
    log_release(keys[5], x, 'expired:' .. reason, now)
    return
  end
  if redis.call('EXISTS', keys[14]) == 1 then
    redis.call('HSET', keys[14], 'closed_at', now, 'close_reason', 'expired:' .. reason)
  end
  redis.call('ZREM', keys[12], id)
  redis.call('ZREM', keys[13], id)
end

-- The caller has found the timeout or the deadline passed.
redis.register_function('ff_expire_execution', function(keys, args)
  local core, id, reason = keys[1], args[1], args[2] or 'attempt_timeout'
  local now = now_ms()
  local x = read_holder(core, 'attempt_state', 'lane_id', 'current_lane', 'flow_id')
  redis.call('ZREM', keys[10], id)
  redis.call('ZREM', keys[11], id)
  if not x then
    return ok('not_found_cleaned')
  end
  local phase = x.lifecycle_phase
  if phase == 'terminal' then
    return ok('already_terminal')
  elseif phase == 'active' or phase == 'suspended' then
    stop_for_expiry(keys, x, id, reason, now)
  else
    leave_queue(tag_of(core), x, id)
    wake_tails(tag_of(core), id)
  end
  redis.call('HSET', core, 'failure_reason', reason, 'current_lease_id', '', 'current_worker_id', '',
    'current_worker_instance_id', '', 'lease_expires_at', '', 'current_suspension_id', '', 'current_waitpoint_id', '',
    ended(now, 'expired', last_attempt_state(x), 'expired'))
  redis.call('ZADD', keys[9], now, id)
  publish_completion(x.flow_id, id, 'expired')
  return ok('expired', phase or '')
end)

-- How often an execution may be taken over: by its policy, else by the caller; nil and
-- the reply that refuses when that is no number.
local function reclaim_cap(core, given)
  local cap = 100
  if given then
    cap = tonumber(given)
    if not cap then
      return nil, refuse('default_max_reclaim_count', given)
    end
  end
  local policy = decode(redis.call('GET', (string.gsub(core, ':core$', ':policy'))) or '')
  if type(policy) == 'table' and policy.max_reclaim_count ~= nil then
    cap = tonumber(policy.max_reclaim_count)
    if not cap then
      return nil, refuse('max_reclaim_count', policy.max_reclaim_count)
    end
  end
  return cap
end

-- An execution whose workers were lost too often has failed.
local function fail_at_cap(keys, x, id, now)
  local core, tag = keys[1], tag_of(keys[1])
  redis.call('HSET', core, 'failure_reason', 'max_reclaims_exceeded', 'current_lease_id', '',
    'current_worker_id', '', 'current_worker_instance_id', '',
    ended(now, 'failed', 'attempt_terminal', 'failed'))
  drop_lease(id, keys[8], keys[10], keys[11], keys[12], keys[13])
  if is_set(x.current_worker_instance_id) then
    redis.call('SREM', worker_leases_key(tag, x.current_worker_instance_id), id)
  end
  redis.call('ZREM', keys[14], id)
  redis.call('ZADD', lane_key(tag, lane_of(x), 'terminal'), now, id)
  wake_tails(tag, id)
  publish_completion(x.flow_id, id, 'failed')
end

-- Ends the attempt whose lease was lost and starts one under the lease l.
local function take_over(keys, x, l)
  local core, id, now = keys[1], l.execution_id, l.now
  local reason = 'lease_' .. x.ownership_state
  local old_index = is_set(x.current_attempt_index) and x.current_attempt_index or '0'
  local attempt, stream = current_keys(core, id, x, keys[3], keys[4])
  redis.call('DEL', keys[2])
  redis.call('HSET', attempt, 'attempt_state', 'interrupted_reclaimed', 'ended_at', now, 'failure_reason', reason)
  close_stream(stream, 'reclaimed', now)
  add_attempt(core, keys[7], l, 'reclaim', 'reclaim_reason', reason, 'previous_attempt_index', old_index)
  give_lease(core, keys[8], l, 'current_attempt_index', l.index, 'total_attempt_count', l.index + 1,
    'current_attempt_id', l.attempt_id, 'lease_reclaim_count', number_of(x.lease_reclaim_count) + 1)
  if is_set(x.current_worker_instance_id) and x.current_worker_instance_id ~= l.instance then
    redis.call('SREM', worker_leases_key(tag_of(core), x.current_worker_instance_id), id)
  end
  index_lease(keys[10], keys[11], keys[12], l)
  add_history(keys[9], 'reclaimed', 'old_lease_epoch', x.current_lease_epoch or '', 'new_lease_id', l.lease_id,
    'new_lease_epoch', l.epoch, 'new_attempt_id', l.attempt_id, 'new_attempt_index', l.index,
    'worker_id', l.worker_id, 'ts', now)
end

redis.register_function('ff_reclaim_execution', function(keys, args)
  local core, grant, id = keys[1], keys[2], args[1]
  local ttl, bad = number_arg(args[6], 'lease_ttl_ms')
  if not ttl then
    return bad
  end
  local now = now_ms()
  local x = read_holder(core, 'total_attempt_count', 'lease_reclaim_count', 'lane_id', 'current_lane', 'flow_id')
  if not x then
    return err('execution_not_found')
  elseif x.lifecycle_phase ~= 'active' or
      x.ownership_state ~= 'lease_expired_reclaimable' and x.ownership_state ~= 'lease_revoked' then
    return err('execution_not_reclaimable')
  end
  local cap
  cap, bad = reclaim_cap(core, args[9])
  if not cap then
    return bad
  elseif number_of(x.lease_reclaim_count) >= cap then
    fail_at_cap(keys, x, id, now)
    return err('max_retries_exhausted', tostring(cap))
  elseif redis.call('HGET', grant, 'worker_id') ~= args[2] then
    return err('invalid_claim_grant')
  end
  local l = {execution_id = id, worker_id = args[2], instance = args[3], lane = args[4], lease_id = args[5],
    attempt_id = args[7], epoch = number_of(x.current_lease_epoch) + 1, index = number_of(x.total_attempt_count),
    now = now, expires = now + ttl, renewal = now + math.floor(ttl * 2 / 3)}
  take_over(keys, x, l)
  return ok(l.lease_id, tostring(l.epoch), tostring(l.expires), l.attempt_id, tostring(l.index), 'reclaim')
end)

redis.register_function('ff_set_execution_tags', function(keys, args)
  if #args == 0 or #args % 2 ~= 0 then
    return err('invalid_input', 'tags must be non-empty even-length key/value pairs')
  elseif redis.call('EXISTS', keys[1]) == 0 then
    return err('execution_not_found')
  end
  for i = 1, #args, 2 do
    if not is_tag(args[i]) then
      return err('invalid_tag_key', args[i])
    end
  end
  hset_all(keys[2], args)
  redis.call('HSET', keys[1], 'last_mutation_at', now_ms())
  return ok(tostring(#args / 2))
end)

-- Progress does not extend the lease, and a lapsed one is only refused.
redis.register_function('ff_update_progress', function(keys, args)
  local core = keys[1]
  local now = now_ms()
  local x = read_holder(core)
  if not x then
    return err('execution_not_found')
  elseif x.lifecycle_phase ~= 'active' then
    return not_active(x)
  elseif x.ownership_state == 'lease_revoked' then
    return err('lease_revoked')
  elseif number_of(x.lease_expires_at) <= now then
    return err('lease_expired')
  elseif x.current_lease_id ~= args[2] or x.current_lease_epoch ~= args[3] then
    return err('stale_lease')
  end
  local fields = {'last_mutation_at', now, 'progress_updated_at', now}
  for i, name in ipairs({'progress_pct', 'progress_message'}) do
    if is_set(args[3 + i]) then
      append(fields, name, args[3 + i])
    end
  end
  redis.call('HSET', core, unpack(fields))
  return ok()
end)

end
