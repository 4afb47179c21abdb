-- Quotas, and executions that an admission check holds back.
do

redis.register_function('ff_create_quota_policy', function(keys, args)
  local policy, id = keys[1], args[1]
  if redis.call('EXISTS', policy) == 1 then
    return {1, 'ALREADY_SATISFIED', id}
  end
  redis.call('HSET', policy, 'quota_policy_id', id, 'requests_per_window_seconds', args[2],
    'max_requests_per_window', args[3], 'active_concurrency_cap', args[4], 'created_at', args[5])
  redis.call('SET', keys[3], '0')
  redis.call('SADD', keys[5], id)
  return ok(id)
end)

-- How long to wait until the oldest admission leaves the window, with some jitter.
local function retry_after(window_key, window, now, jitter)
  local oldest = redis.call('ZRANGE', window_key, 0, 0, 'WITHSCORES')
  local wait = math.max(0, oldest[2] + window - now)
  if jitter > 0 then
    wait = wait + math.floor(math.random() * (jitter + 1))
  end
  return wait
end

-- The four numbers of an admission, or nil and the reply that refuses one of them.
local function admission_numbers(args)
  local numbers = {}
  for i, name in ipairs({'now_ms', 'window_seconds', 'rate_limit', 'concurrency_cap'}) do
    local n, bad = number_arg(args[i], name)
    if not n then
      return nil, bad
    end
    numbers[i] = n
  end
  return numbers
end

-- The replies of this function carry no success mark.
redis.register_function('ff_check_admission_and_record', function(keys, args)
  local admissions, running, guard = keys[1], keys[2], keys[4]
  local id = args[5]
  local numbers, bad = admission_numbers(args)
  if not numbers then
    return bad
  end
  local now, window, limit, cap = numbers[1], numbers[2] * 1000, numbers[3], numbers[4]
  if redis.call('EXISTS', guard) == 1 then
    return {'ALREADY_ADMITTED'}
  end
  redis.call('ZREMRANGEBYSCORE', admissions, '-inf', now - window)
  if limit > 0 and redis.call('ZCARD', admissions) >= limit then
    local jitter = tonumber(args[6] or '0')
    if not jitter then
      return refuse('jitter_ms', args[6])
    end
    return {'RATE_EXCEEDED', tostring(retry_after(admissions, window, now, jitter))}
  end
  if cap > 0 and tonumber(redis.call('GET', running) or '0') >= cap then
    return {'CONCURRENCY_EXCEEDED'}
  end
  -- A window that cannot be a lifetime fails here, before anything is recorded.
  if window > 0 then
    redis.call('SET', guard, '1', 'PX', window)
  end
  redis.call('ZADD', admissions, now, id)
  if cap > 0 then
    redis.call('INCR', running)
  end
  redis.call('SADD', keys[5], id)
  return {'ADMITTED'}
end)

-- Only an admission that is recorded is taken off the count.
redis.register_function('ff_release_admission', function(keys, args)
  local guard, admitted, running = keys[1], keys[2], keys[3]
  redis.call('DEL', guard)
  if redis.call('SREM', admitted, args[1]) == 1 and tonumber(redis.call('GET', running) or '0') > 0 then
    redis.call('DECR', running)
  end
  return ok('released')
end)

local held_back = {
  waiting_for_budget = 'blocked_by_budget',
  waiting_for_quota = 'blocked_by_quota',
  waiting_for_capable_worker = 'blocked_by_route',
  paused_by_operator = 'blocked_by_operator',
  paused_by_policy = 'blocked_by_lane_state',
}

local released_by_unblock = {
  blocked_by_budget = true,
  blocked_by_quota = true,
  blocked_by_route = true,
  blocked_by_operator = true,
}

redis.register_function('ff_block_execution_for_admission', function(keys, args)
  local core, id, reason, now = keys[1], args[1], args[2], args[4]
  local x = read(core, 'lifecycle_phase', 'attempt_state', 'terminal_outcome', 'current_lease_epoch',
    'current_attempt_id')
  if not x then
    return err('execution_not_found')
  elseif x.lifecycle_phase == 'terminal' then
    return not_active(x)
  elseif x.lifecycle_phase ~= 'runnable' then
    return err('execution_not_eligible')
  end
  local eligibility = held_back[reason or '']
  if not eligibility then
    return err('invalid_blocking_reason')
  end
  -- First what can fail, so that the execution stays in an index.
  redis.call('ZADD', keys[3], now, id)
  redis.call('ZREM', keys[2], id)
  redis.call('HSET', core, queued(now, eligibility, reason, args[3] or '',
    x.attempt_state or 'pending_first_attempt', 'rate_limited'))
  return ok('blocked')
end)

redis.register_function('ff_unblock_execution', function(keys, args)
  local core = keys[1]
  local x = read(core, 'lifecycle_phase', 'eligibility_state', 'blocking_reason', 'attempt_state',
    'created_at', 'priority', 'lane_id')
  if not x then
    return err('execution_not_found')
  elseif x.lifecycle_phase ~= 'runnable' or not released_by_unblock[x.eligibility_state or ''] then
    return err('execution_not_eligible')
  elseif is_set(args[3]) and args[3] ~= x.blocking_reason then
    return err('execution_not_eligible')
  end
  redis.call('HSET', core, queued(args[2], 'eligible_now', 'waiting_for_worker', '',
    x.attempt_state or 'pending_first_attempt', 'waiting'))
  line_up(keys[2], keys[3], args[1], x)
  return ok('unblocked')
end)

end
