-- Signals to waitpoints, and the claim of what they have resumed.
do

-- The reply to a signal that was accepted before or is one too many, nil to a new one.
local function turn_away(k, s)
  local first = waitpoints.has_dedup(s) and redis.call('GET', k.dedup)
  if first then
    return {1, 'DUPLICATE', first}
  elseif s.max_signals > 0 and redis.call('ZCARD', k.exec_signals) >= s.max_signals then
    return err('signal_limit_exceeded')
  end
end

-- nil when the waitpoint takes signals, else the code that refuses them.
local function not_signalable(x, w)
  if x.lifecycle_phase == 'suspended' then
    return nil
  elseif x.lifecycle_phase ~= 'terminal' and w.state == 'pending' then
    return 'waitpoint_pending_use_buffer_script'
  end
  return 'target_not_signalable'
end

-- Ends the suspension that a signal has satisfied, with all its other waitpoints.
local function end_suspension(k, s, x, c)
  waitpoints.resume(k, s.execution_id, x, s.now, s.resume_delay_ms, ' after signal ' .. s.name)
  local suspension = read(k.suspension, 'waitpoint_id', 'additional_waitpoints_json')
  if not suspension then
    return
  end
  for _, id in ipairs(waitpoints.ids(suspension)) do
    if id ~= s.waitpoint_id then
      waitpoints.close(tag_of(k.core), id, s.now, 'resumed', 'satisfied', 'satisfied_at', s.now)
    end
  end
  local fields = {'satisfied_at', s.now}
  if c.composite then
    append(fields, 'closer_signal_id', s.id, 'all_satisfier_signals',
      cjson.encode(redis.call('SMEMBERS', k.suspension .. ':satisfied_set:signals')))
  else
    append(fields, 'last_signal_at', s.now)
  end
  waitpoints.close_record(k.suspension, s.now, 'resumed', unpack(fields))
end

redis.register_function('ff_deliver_signal', function(keys, args)
  local k = {core = keys[1], condition = keys[2], signals = keys[3], exec_signals = keys[4],
    signal = keys[5], payload = keys[6], dedup = keys[7], waitpoint = keys[8], suspension = keys[9],
    eligible = keys[10], suspended = keys[11], delayed = keys[12], timeouts = keys[13], secrets = keys[14]}
  local s, bad = waitpoints.read_signal(args)
  if not s then
    return bad
  end
  local x, w = waitpoints.authenticate(k, s, 'invalid_token')
  if not x then
    return w
  end
  local code = not_signalable(x, w)
  if code then
    return err(code)
  end
  local c = waitpoints.read_condition(k.condition)
  if not c then
    return err('waitpoint_not_found')
  elseif c.closed or w.suspension_id ~= x.current_suspension_id then
    return err('waitpoint_closed')
  end
  local away = turn_away(k, s)
  if away then
    return away
  end

  local effect, taken = waitpoints.feed(c, k.suspension, s)
  local resumes = effect == 'resume_condition_satisfied'
  waitpoints.store_signal(k, s, effect)
  waitpoints.note_signal(k, s, w, c, effect, taken, resumes)
  if resumes then
    end_suspension(k, s, x, c)
  elseif redis.call('EXISTS', k.suspension) == 1 then
    redis.call('HSET', k.suspension, 'last_signal_at', s.now)
  end
  redis.call('XADD', keys[15], 'MAXLEN', '~', '1000', '*', 'signal_id', s.id,
    'execution_id', s.execution_id, 'waitpoint_id', s.waitpoint_id, 'source_identity', s.source_identity,
    'effect', effect, 'delivered_at_ms', s.now)
  return ok(s.id, effect)
end)

-- A waitpoint that is active by now must get its signal by delivery, or it would wait
-- for ever.
redis.register_function('ff_buffer_signal_for_pending_waitpoint', function(keys, args)
  local k = {core = keys[1], signals = keys[3], exec_signals = keys[4], signal = keys[5],
    payload = keys[6], dedup = keys[7], waitpoint = keys[8], secrets = keys[9]}
  local s, bad = waitpoints.read_signal(args)
  if not s then
    return bad
  end
  local x, w = waitpoints.authenticate(k, s, 'waitpoint_not_found')
  if not x then
    return w
  elseif w.state == 'closed' or w.state == 'expired' then
    return err('waitpoint_closed')
  elseif w.state == 'active' then
    return err('waitpoint_not_pending')
  end
  local away = turn_away(k, s)
  if away then
    return away
  end
  waitpoints.store_signal(k, s, 'buffered_for_pending_waitpoint')
  return ok(s.id, 'buffered_for_pending_waitpoint')
end)

-- nil when the worker may take up the execution again, else the code that refuses it.
-- A grant that has run out is removed.
local function refuse_resumed(x, grant_key, worker_id, now)
  if not x then
    return 'execution_not_found'
  elseif x.lifecycle_phase ~= 'runnable' then
    return 'execution_not_leaseable'
  elseif x.attempt_state ~= 'attempt_interrupted' then
    return 'not_a_resumed_execution'
  end
  local grant = read(grant_key, 'worker_id', 'grant_expires_at')
  if not grant or grant.worker_id ~= worker_id then
    return 'invalid_claim_grant'
  elseif is_set(grant.grant_expires_at) and number_of(grant.grant_expires_at) < now then
    redis.call('DEL', grant_key)
    return 'claim_grant_expired'
  end
end

redis.register_function('ff_claim_resumed_execution', function(keys, args)
  local core, grant, id = keys[1], keys[2], args[1]
  local ttl, bad = number_arg(args[7], 'lease_ttl_ms')
  if not ttl then
    return bad
  end
  local now = now_ms()
  local x = read(core, 'lifecycle_phase', 'attempt_state', 'eligibility_state', 'lane_id',
    'current_lease_epoch', 'current_attempt_index', 'current_attempt_id')
  local code = refuse_resumed(x, grant, args[2], now)
  if code then
    return err(code)
  end
  local timeout = tonumber(is_set(args[8]) and args[8] or '0')
  if not timeout then
    return refuse('remaining_attempt_timeout_ms', args[8])
  end

  local l = {execution_id = id, worker_id = args[2], instance = args[3], lane = args[4], lease_id = args[6],
    attempt_id = x.current_attempt_id or '', index = x.current_attempt_index or '',
    epoch = number_of(x.current_lease_epoch) + 1, now = now, expires = now + ttl,
    renewal = now + math.floor(ttl * 2 / 3)}
  redis.call('DEL', grant)
  resume_attempt(attempt_key(core, id, l.index), l)
  give_lease(core, keys[7], l)
  redis.call('ZREM', keys[3], id)
  if x.eligibility_state == 'not_eligible_until_time' then
    redis.call('ZREM', lane_key(tag_of(core), x.lane_id or '', 'delayed'), id)
  end
  index_lease(keys[4], keys[5], keys[9], l)
  if timeout > 0 then
    redis.call('ZADD', keys[10], now + timeout, id)
  end
  add_history(keys[8], 'acquired', 'lease_id', l.lease_id, 'lease_epoch', l.epoch, 'attempt_index', l.index,
    'attempt_id', l.attempt_id, 'worker_id', l.worker_id, 'reason', 'claim_resumed', 'ts', now)
  return ok(l.lease_id, tostring(l.epoch), tostring(l.expires), l.attempt_id, l.index, 'resumed')
end)

end
