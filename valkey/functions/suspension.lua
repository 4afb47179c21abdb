-- Suspensions: an execution gives up its lease and waits for signals, an operator or
-- a timeout.
do

-- Some fields of a suspension that is not closed, or nil.
local function read_open(key, ...)
  local s = read(key, 'suspension_id', 'closed_at', 'waitpoint_id', 'additional_waitpoints_json', ...)
  return s and is_set(s.suspension_id) and not is_set(s.closed_at) and s or nil
end

-- Makes a suspended execution claimable, at once or after a delay. The names of k are
-- core, suspended, eligible, delayed and timeouts.
function waitpoints.resume(k, id, x, now, delay, cause)
  local function become(...)
    redis.call('HSET', k.core, 'current_suspension_id', '', 'current_waitpoint_id', '', queued(now, ...))
  end
  redis.call('ZREM', k.timeouts, id)
  if delay > 0 then
    become('not_eligible_until_time', 'waiting_for_resume_delay', 'resume delay ' .. tostring(delay) .. 'ms' .. cause,
      'attempt_interrupted', 'delayed')
    redis.call('ZREM', k.suspended, id)
    redis.call('ZADD', k.delayed, now + delay, id)
    return 'delayed'
  end
  become('eligible_now', 'waiting_for_worker', '', 'attempt_interrupted', 'waiting')
  line_up(k.suspended, k.eligible, id, x)
  return 'waiting'
end

-- The waitpoints that a suspension has beside its primary one; nil and a refusal when
-- an argument or key of theirs is missing.
local function extra_waitpoints(keys, args)
  local count = tonumber(args[20] or '0')
  if not count then
    return nil, refuse('additional_waitpoint_count', args[20])
  end
  local list = {}
  for i = 0, count - 1 do
    local w = {id = args[21 + 2 * i], key = args[22 + 2 * i], hash = keys[19 + 3 * i], condition = keys[21 + 3 * i]}
    if not is_set(w.id) or not is_set(w.key) then
      return nil, err('additional_waitpoint_binding_malformed')
    elseif not w.condition then
      return nil, refuse('number of keys', #keys)
    end
    list[#list + 1] = w
  end
  return list
end

-- The reply to the first call with the same idempotency key, or nil.
local function earlier_outcome(key)
  local stored, reply = key and redis.call('HGET', key, 'outcome'), {1}
  if not stored then
    return nil
  end
  for part in string.gmatch(stored .. '\t', '([^\t]*)\t') do
    reply[#reply + 1] = part
  end
  return #reply > 5 and reply or nil
end

-- Ends a suspend call: remembers the reply under the idempotency key, if there is one.
local function answer(status, s, primary, extras, dedup_key)
  local reply = {1, status, s.id, primary.id, primary.key, primary.token, tostring(#extras)}
  for _, w in ipairs(extras) do
    append(reply, w.id, w.key, w.token)
  end
  if dedup_key then
    redis.call('HSET', dedup_key, 'outcome', table.concat(reply, '\t', 2))
    if s.dedup_ttl > 0 then
      redis.call('PEXPIRE', dedup_key, s.dedup_ttl)
    end
  end
  return reply
end

-- Fills in a waitpoint that was created ahead; returns nil, or the reply that refuses it.
local function read_pending(w, s)
  local x = read(w.hash, 'waitpoint_id', 'waitpoint_key', 'waitpoint_token', 'state', 'execution_id',
    'attempt_index', 'expires_at')
  if not x then
    return err('waitpoint_not_found')
  elseif x.state ~= 'pending' then
    return err('waitpoint_not_pending')
  elseif x.execution_id ~= s.execution_id or x.attempt_index ~= s.attempt_index then
    return err('invalid_waitpoint_for_execution')
  elseif is_set(x.expires_at) and number_of(x.expires_at) <= s.now then
    return err('pending_waitpoint_expired')
  elseif not is_set(x.waitpoint_token) then
    return err('waitpoint_not_token_bound')
  end
  w.id, w.key, w.token = x.waitpoint_id or '', x.waitpoint_key or '', x.waitpoint_token
end

-- Takes the lease from an execution that suspends itself.
local function give_up_lease(k, s, waitpoint_id)
  redis.call('HSET', k.core, 'current_suspension_id', s.id, 'current_waitpoint_id', waitpoint_id,
    'last_transition_at', s.now, 'last_mutation_at', s.now,
    without_lease(state('suspended', 'unowned', 'not_applicable',
      waitpoints.blocking_reasons[s.reason] or 'waiting_for_signal',
      'suspended: waitpoint ' .. waitpoint_id .. ' awaiting ' .. s.reason,
      'none', 'attempt_interrupted', 'suspended')))
  redis.call('HSET', k.attempt, 'attempt_state', 'suspended', 'suspended_at', s.now, 'suspension_id', s.id)
  redis.call('DEL', k.lease)
  redis.call('ZREM', k.expiry, s.execution_id)
  redis.call('SREM', k.leases, s.execution_id)
  redis.call('ZREM', k.active, s.execution_id)
  redis.call('ZREM', k.attempt_timeouts, s.execution_id)
  redis.call('XADD', k.history, 'MAXLEN', '~', s.history_maxlen, '*', 'event', 'released',
    'lease_id', s.lease_id, 'lease_epoch', s.lease_epoch, 'attempt_index', s.attempt_index,
    'attempt_id', s.attempt_id, 'reason', 'suspend', 'ts', s.now)
end

-- The suspension that the arguments describe. Its numbers are nil when they are none.
local function read_suspend_args(args)
  return {execution_id = args[1], attempt_index = args[2], attempt_id = args[3], lease_id = args[4],
    lease_epoch = args[5], id = args[6], reason = args[9], requested_by = args[10], timeout_at = args[11],
    condition = args[12], policy = args[13], pointer = args[14], timeout_behavior = args[16] or 'fail',
    history_maxlen = tonumber(args[17] or '1000'), dedup_ttl = tonumber(args[19] or '0'), now = now_ms()}
end

-- Refuses arguments that a later write would stumble over.
local function refuse_unusable(s, c, dedup_key)
  if not s.pointer then
    return refuse('number of arguments', '')
  elseif not c then
    return refuse('resume_condition_json', s.condition)
  elseif is_set(s.timeout_at) and not waitpoints.is_score(s.timeout_at) then
    return refuse('timeout_at', s.timeout_at)
  elseif not s.history_maxlen or not is_whole(s.history_maxlen) or s.history_maxlen < 0 then
    return refuse('lease_history_maxlen', s.history_maxlen)
  elseif dedup_key and (not s.dedup_ttl or not is_whole(s.dedup_ttl)) then
    return refuse('dedup_ttl_ms', s.dedup_ttl)
  end
end

-- nil and the last suspension when the holder may suspend the execution now, else the
-- reply that refuses.
local function refuse_suspend(k, s)
  local x = read_holder(k.core)
  if not x then
    return err('execution_not_found')
  end
  local refused = check_fence(k.core, k.history, x, s.lease_id, s.lease_epoch, s.attempt_id, false, s.now)
  if refused then
    return refused
  elseif x.current_attempt_index ~= s.attempt_index then
    return err('invalid_lease_for_suspend')
  end
  local last = read(k.suspension, 'waitpoint_id', 'closed_at')
  if last and not is_set(last.closed_at) then
    return err('already_suspended')
  end
  return nil, last or {}
end

redis.register_function('ff_suspend_execution', function(keys, args)
  local k = {core = keys[1], attempt = keys[2], lease = keys[3], history = keys[4], expiry = keys[5],
    leases = keys[6], suspension = keys[7], signals = keys[9], timeouts = keys[10], pending = keys[11],
    active = keys[12], suspended = keys[13], waitpoints = keys[14], attempt_timeouts = keys[16]}
  local extras, bad = extra_waitpoints(keys, args)
  if not extras then
    return bad
  end
  local dedup_key = is_set(args[18]) and is_set(keys[18]) and not string.find(keys[18], '^ff:noop:') and keys[18]
  local earlier = earlier_outcome(dedup_key)
  if earlier then
    return earlier
  end

  local s, ahead = read_suspend_args(args), args[15] == '1'
  local refused, last = refuse_suspend(k, s)
  if refused then
    return refused
  end
  local primary = {id = args[7], key = args[8], hash = keys[8], condition = keys[15]}
  local list = {primary, unpack(extras)}
  local c = waitpoints.parse_condition(s.condition or '')
  if ahead then
    refused = read_pending(primary, s)
  else
    refused = waitpoints.sign(keys[17], list, s.now)
  end
  refused = refused or refuse_unusable(s, c, dedup_key)
  if refused then
    return refused
  end

  if is_set(last.waitpoint_id) then
    redis.call('SADD', k.waitpoints, last.waitpoint_id)
  end
  redis.call('DEL', k.suspension, waitpoints.composite_keys(k.suspension))
  if not ahead then
    for _, w in ipairs(list) do
      waitpoints.create(w, s, c)
    end
  elseif waitpoints.feed_buffered(c, k.signals, k.suspension, primary) then
    waitpoints.activate(k, primary, s, c, true)
    redis.call('DEL', waitpoints.composite_keys(k.suspension))
    return answer('ALREADY_SATISFIED', s, primary, {}, dedup_key)
  elseif #extras > 0 then
    return err('use_pending_with_extras_unsupported')
  else
    waitpoints.activate(k, primary, s, c, false)
  end
  give_up_lease(k, s, primary.id)
  waitpoints.write_suspension(k, s, c, list)
  waitpoints.index_suspension(k, s)
  return answer('OK', s, primary, extras, dedup_key)
end)

-- The condition of the primary waitpoint stays as it is: its signals are refused since
-- the suspension they are for is over.
redis.register_function('ff_resume_execution', function(keys, args)
  local k = {core = keys[1], suspension = keys[2], timeouts = keys[5], eligible = keys[6],
    delayed = keys[7], suspended = keys[8]}
  local delay = tonumber(args[3] or '0')
  if not delay then
    return refuse('resume_delay_ms', args[3])
  end
  local now, tag = now_ms(), tag_of(k.core)
  local x = read(k.core, 'lifecycle_phase', 'created_at', 'priority', 'lane_id')
  if not x then
    return err('execution_not_found')
  end
  local s = x.lifecycle_phase == 'suspended' and read_open(k.suspension)
  if not s then
    return err('execution_not_suspended')
  end
  local public = waitpoints.resume(k, args[1], x, now, delay, '')
  for _, id in ipairs(waitpoints.ids(s)) do
    waitpoints.close(tag, id, now, 'resumed', id ~= s.waitpoint_id and 'resumed', 'satisfied_at', now)
  end
  waitpoints.close_record(k.suspension, now, 'resumed', 'satisfied_at', now)
  return ok(public)
end)

redis.register_function('ff_create_pending_waitpoint', function(keys, args)
  local core, key = keys[1], keys[2]
  local now, w = now_ms(), {id = args[3], key = args[4]}
  local x = read(core, 'lifecycle_phase', 'ownership_state', 'terminal_outcome', 'current_lease_epoch',
    'current_attempt_id', 'current_attempt_index')
  if not x then
    return err('execution_not_found')
  elseif x.lifecycle_phase ~= 'active' then
    return not_active(x)
  elseif x.ownership_state ~= 'leased' then
    return err('no_active_lease')
  elseif x.current_attempt_index ~= args[2] then
    return err('stale_lease')
  end
  local known = redis.call('HGET', key, 'state')
  if known == 'pending' or known == 'active' then
    return err('waitpoint_already_exists')
  end
  local refused = waitpoints.sign(keys[4], {w}, now)
  if refused then
    return refused
  elseif not waitpoints.is_score(args[5]) then
    return refuse('expires_at', args[5])
  end

  -- Signals of an earlier use of the id are not for this one.
  redis.call('DEL', key .. ':signals', key .. ':condition')
  redis.call('HSET', key, 'waitpoint_id', w.id, 'execution_id', args[1], 'attempt_index', args[2],
    'suspension_id', '', 'waitpoint_key', w.key, 'waitpoint_token', w.token, 'state', 'pending',
    'created_at', now, 'activated_at', '', 'satisfied_at', '', 'closed_at', '', 'expires_at', args[5],
    'close_reason', '', 'signal_count', '0', 'matched_signal_count', '0', 'last_signal_at', '')
  redis.call('ZADD', keys[3], args[5], w.id)
  return ok(w.id, w.key, w.token)
end)

-- An operator has to decide.
local function escalate(k, x, s, now)
  redis.call('HSET', k.core, 'last_mutation_at', now,
    state('suspended', 'unowned', 'not_applicable', 'paused_by_operator',
      'suspension escalated: timeout at ' .. s.timeout_at, 'none',
      x.attempt_state or 'attempt_interrupted', 'suspended'))
  redis.call('HSET', k.suspension, 'reason_code', 'waiting_for_operator_review', 'timeout_at', '',
    'timeout_behavior', '')
  return ok('escalate', 'suspended')
end

-- The timeout ends the execution.
local function end_suspended(k, id, x, behavior, outcome, now)
  local reason = 'suspension_timeout:' .. behavior
  redis.call('HSET', k.core, 'failure_reason', reason, 'current_suspension_id', '', 'current_waitpoint_id', '',
    ended(now, outcome, 'attempt_terminal', outcome))
  if is_set(x.current_attempt_index) then
    redis.call('HSET', attempt_key(k.core, id, x.current_attempt_index),
      'attempt_state', outcome == 'cancelled' and 'ended_cancelled' or 'ended_failure', 'ended_at', now,
      'failure_reason', reason, 'suspended_at', '', 'suspension_id', '')
    close_stream(stream_meta_key(k.core, id, x.current_attempt_index), 'suspension_timeout', now)
  end
  redis.call('ZREM', k.suspended, id)
  redis.call('ZREM', 'ff:idx:' .. tag_of(k.core) .. ':execution_deadline', id)
  redis.call('ZADD', k.terminal, now, id)
  publish_completion(x.flow_id, id, outcome)
end

local auto_resumes = {auto_resume = true, auto_resume_with_timeout_signal = true}
local timeout_outcomes = {cancel = 'cancelled', expire = 'expired', fail = 'failed'}

-- Applies what a suspension shall do when its time is over.
local function time_out(k, id, x, s, now)
  local behavior = s.timeout_behavior or 'fail'
  redis.call('ZREM', k.timeouts, id)
  if behavior == 'escalate' then
    return escalate(k, x, s, now)
  end
  local auto = auto_resumes[behavior]
  local kind = auto and 'auto_resume' or timeout_outcomes[behavior] and behavior or 'fail'
  for _, waitpoint_id in ipairs(waitpoints.ids(s)) do
    waitpoints.close(tag_of(k.core), waitpoint_id, now, 'timed_out_' .. kind, 'timed_out_' .. kind)
  end
  waitpoints.close_record(k.suspension, now, 'timed_out_' .. kind)
  if auto then
    return ok('auto_resume', waitpoints.resume(k, id, x, now, 0, ''))
  end
  end_suspended(k, id, x, behavior, timeout_outcomes[kind], now)
  return ok(behavior, timeout_outcomes[kind])
end

redis.register_function('ff_expire_suspension', function(keys, args)
  local k = {core = keys[1], suspension = keys[2], timeouts = keys[7], suspended = keys[8],
    terminal = keys[9], eligible = keys[10], delayed = keys[11]}
  local id, now = args[1], now_ms()
  local function stray(answer)
    redis.call('ZREM', k.timeouts, id)
    return ok(answer)
  end
  local x = read(k.core, 'lifecycle_phase', 'attempt_state', 'created_at', 'priority', 'lane_id', 'flow_id',
    'current_attempt_index')
  if not x then
    return stray('not_found_cleaned')
  elseif x.lifecycle_phase ~= 'suspended' then
    return stray('not_suspended_cleaned')
  end
  local s = read_open(k.suspension, 'timeout_at', 'timeout_behavior')
  if not s then
    return stray('no_active_suspension_cleaned')
  end
  local due = number_of(s.timeout_at)
  if due == 0 then
    return stray('not_yet_due')
  elseif due > now then
    return ok('not_yet_due')
  end
  return time_out(k, id, x, s, now)
end)

redis.register_function('ff_close_waitpoint', function(keys, args)
  redis.call('ZREM', keys[3], args[1])
  local w = read(keys[2], 'state')
  if not w then
    return err('waitpoint_not_found')
  elseif w.state == 'closed' or w.state == 'expired' then
    return ok('already_closed')
  elseif w.state ~= 'pending' and w.state ~= 'active' then
    return err('waitpoint_not_open')
  end
  redis.call('HSET', keys[2], 'state', 'closed', 'closed_at', now_ms(), 'close_reason', args[2] or 'proactive_close')
  return ok()
end)

end
