-- The fields that the check of a holder needs.
local HOLDER = {'lifecycle_phase', 'ownership_state', 'terminal_outcome', 'current_lease_id', 'current_lease_epoch',
  'current_attempt_id', 'current_attempt_index', 'lease_expires_at', 'attempt_state', 'public_state', 'lane_id', 'current_worker_id',
  'current_worker_instance_id', 'flow_id', 'failure_reason', 'failure_category', 'priority', 'created_at', 'retry_count',
  'eligibility_state', 'has_policy', 'own_epoch', 'attempt_timeout_at'}

local function load_holder(core)
  local values, x, found = redis.call('HMGET', core, unpack(HOLDER)), {}, false
  for i = 1, #HOLDER do
    local v = values[i]
    if v then
      found = true
      if v ~= '' then
        x[HOLDER[i]] = v
      end
    end
  end
  if not found and redis.call('EXISTS', core) == 0 then
    return nil
  end
  return x
end

-- Records that the lease has lapsed: the execution can be claimed from now on.
local function mark_lapsed(tag, base, id, x, now)
  if x.ownership_state ~= 'leased' then
    return
  end
  redis.call('HSET', base .. ':core', 'ownership_state', 'lease_expired_reclaimable', 'blocking_reason', 'waiting_for_worker',
    'blocking_detail', 'lease expired, awaiting reclaim', 'attempt_state', 'attempt_interrupted', 'lease_expired_at', now,
    'last_mutation_at', now)
  -- A peer that claimed knows the timeout only by the index.
  redis.call('HSET', base .. ':core', 'attempt_timeout_at', redis.call('ZSCORE', 'ff:idx:' .. tag .. ':attempt_timeout', id) or '')
  redis.call('SREM', worker_leases_key(tag, x.current_worker_instance_id or ''), id)
  redis.call('ZREM', 'ff:idx:' .. tag .. ':attempt_timeout', id)
  redis.call('ZADD', lost_key(tag, x.lane_id), score_of(x), id)
  emit_lease(tag, id, x, now, 'expired')
  if x.current_attempt_index then
    close_stream(stream_meta_key('ff:exec:' .. tag, id, x.current_attempt_index), 'lease_expired', now, true, tag, id)
  end
  wake_lane(tag, x.lane_id)
end

-- The check of every command by the holder of a lease: nil, or the refusal. A
-- lapsed lease is recorded. An operator acts under the lease in force.
local function check_holder(tag, base, id, x, lease_id, epoch, attempt_id, source, now)
  if lease_id == '' and source == 'operator_override' then
    lease_id, epoch, attempt_id = x.current_lease_id, x.current_lease_epoch, x.current_attempt_id
  end
  if x.lifecycle_phase ~= 'active' then
    return not_active(x)
  end
  if x.ownership_state == 'lease_revoked' then
    return err('lease_revoked')
  end
  if number_or(x.lease_expires_at, 0) <= now then
    mark_lapsed(tag, base, id, x, now)
    return err('lease_expired')
  end
  if x.current_lease_id ~= lease_id or x.current_lease_epoch ~= epoch or x.current_attempt_id ~= attempt_id then
    return err('stale_lease')
  end
end

-- Whether the caller held the lease under which the execution was last worked on.
local function own_earlier(x, epoch, attempt_id)
  return epoch ~= '' and x.current_lease_epoch == epoch and x.current_attempt_id == attempt_id
end

-- Ends the lease but not the attempt.
local function leave_lease(tag, id, x)
  redis.call('ZREM', 'ff:idx:' .. tag .. ':lease_expiry', id)
  redis.call('SREM', worker_leases_key(tag, x.current_worker_instance_id or ''), id)
  redis.call('ZREM', lane_key(tag, x.lane_id, 'active'), id)
  drop_lease_parts(tag, id, x)
end

-- Makes an execution that a worker held runnable: at once when due is not after
-- now. More fields of the core may follow in pairs.
local function make_runnable(tag, base, id, x, now, due, reason, detail, attempt, ...)
  leave_lease(tag, id, x)
  if due > now then
    set_state(base .. ':core', now, 'runnable', 'unowned', 'not_eligible_until_time', reason, detail, 'none', attempt, 'delayed',
      'current_lease_id', '', 'current_worker_id', '', 'current_worker_instance_id', '', 'lease_expires_at', '',
      'lease_last_renewed_at', '', 'lease_renewal_deadline', '', 'delay_until', due, ...)
    redis.call('ZADD', lane_key(tag, x.lane_id, 'delayed'), due, id)
    note_lane(tag, x.lane_id) -- a peer may have created it
    tell_due('delayed_promoter', due)
    return
  end
  set_state(base .. ':core', now, 'runnable', 'unowned', 'eligible_now', 'waiting_for_worker', '', 'none', attempt, 'waiting',
    'current_lease_id', '', 'current_worker_id', '', 'current_worker_instance_id', '', 'lease_expires_at', '',
    'lease_last_renewed_at', '', 'lease_renewal_deadline', '', 'delay_until', '', ...)
  redis.call('ZADD', lane_key(tag, x.lane_id, 'eligible'), score_of(x), id)
  wake_lane(tag, x.lane_id)
end

local function park(tag, base, id, x, now, due, suspension, reason)
  redis.call('HSET', 'ff:attempt:' .. tag .. ':' .. id .. ':' .. x.current_attempt_index, 'attempt_state', 'suspended',
    'suspended_at', now, 'suspension_id', suspension)
  emit_lease(tag, id, x, now, 'released', reason)
  make_runnable(tag, base, id, x, now, due, 'waiting_for_delay', 'delayed until ' .. string.format('%.0f', due), 'attempt_interrupted')
end

-- Plans the next attempt after a failed one. Answers when it is due.
local function plan_retry(tag, base, id, x, now, backoff, reason, category)
  local due = now + backoff
  emit_lease(tag, id, x, now, 'released', 'failed_retry_scheduled')
  make_runnable(tag, base, id, x, now, due, 'waiting_for_retry_backoff', string.format('retry backoff until %.0f (attempt %s failed: %s)',
    due, x.current_attempt_index, reason), 'pending_retry_attempt', 'pending_retry_reason', reason,
    'pending_previous_attempt_index', x.current_attempt_index, 'retry_count', number_or(x.retry_count, 0) + 1,
    'current_attempt_id', '', 'failure_reason', reason, 'failure_category', category)
  return due
end

-- How long to wait before the next attempt in milliseconds; nil when the policy
-- has no retry left for a failure of this category.
local function backoff_of(id, x, policy, category)
  local retry, count = member(policy_of(policy, 'retry_policy'), 'retry_policy'), number_or(x.retry_count, 0)
  if count >= number_or(retry.max_retries, 0) then
    return nil
  end
  local only = member(retry, 'retryable_categories')
  local allowed = #only == 0
  for _, c in ipairs(only) do
    allowed = allowed or c == category
  end
  if not allowed then
    return nil
  end
  local b = member(retry, 'backoff')
  if b.type == 'fixed' then
    return math.min(number_or(b.delay_ms, 1000), LONGEST)
  elseif b.type ~= 'exponential' then
    return 1000
  end
  local initial, ceiling = number_or(b.initial_delay_ms, 1000), number_or(b.max_delay_ms, 60000)
  local wait = initial < 1 and 0 or math.floor(math.min(initial * number_or(b.multiplier, 2) ^ count, ceiling, LONGEST))
  if b.jitter == true and wait > 0 then
    wait = wait - math.fmod(tonumber(string.sub(redis.sha1hex(id .. '/' .. count), 1, 12), 16), math.floor(wait / 2) + 1)
  end
  return wait
end

-- KEYS: the core of the first. ARGV: TTL, then per lease id, lease id, epoch,
-- attempt id. Answers per lease its end, or the refusal.
redis.register_function('ffx_renew', function(_, a)
  local now, ttl, replies = now_ms(), assert(tonumber(a[1])), {}
  local function renew(i)
    local id = a[i]
    local tag = tag_of(id)
    local base = base_of(tag, id)
    local x = load_holder(base .. ':core')
    if not x then
      return err('execution_not_found')
    end
    local refused = check_holder(tag, base, id, x, a[i + 1], a[i + 2], a[i + 3], '', now)
    if refused then
      return refused
    end
    local expires = math.max(now + ttl, tonumber(x.lease_expires_at))
    redis.call('HSET', base .. ':core', 'lease_last_renewed_at', now, 'lease_renewal_deadline', now + math.floor(ttl * 2 / 3),
      'lease_expires_at', expires, 'last_mutation_at', now)
    redis.call('ZADD', 'ff:idx:' .. tag .. ':lease_expiry', expires, id)
    return ok(expires)
  end
  for i = 2, #a, 4 do
    local good, reply = pcall(renew, i)
    replies[#replies + 1] = good and reply or err('corruption', tostring(reply))
  end
  return replies
end)

-- KEYS: the core. ARGV: id, lease id, epoch, attempt id, percent, message.
redis.register_function('ffx_progress', function(keys, a)
  local now, x = now_ms(), load_holder(keys[1])
  if not x then
    return err('execution_not_found')
  end
  local tag = tag_of(keys[1])
  local refused = check_holder(tag, base_of(tag, a[1]), a[1], x, a[2], a[3], a[4], '', now)
  if refused then
    return refused
  end
  redis.call('HSET', keys[1], 'progress_updated_at', now, 'last_mutation_at', now)
  if a[5] ~= '' then
    redis.call('HSET', keys[1], 'progress_pct', a[5])
  end
  if a[6] ~= '' then
    redis.call('HSET', keys[1], 'progress_message', a[6])
  end
  return ok()
end)

local function complete(tag, base, id, x, now, a)
  if x.lifecycle_phase == 'terminal' and x.terminal_outcome == 'success' and own_earlier(x, a[3], a[4]) then
    return ok('repeated')
  end
  local refused = check_holder(tag, base, id, x, a[2], a[3], a[4], a[5], now)
  if refused then
    return refused
  end
  redis.call('HSET', 'ff:attempt:' .. tag .. ':' .. id .. ':' .. x.current_attempt_index, 'attempt_state', 'ended_success', 'ended_at', now)
  if a[6] ~= '' then
    redis.call('SET', base .. ':result', a[6])
  end
  if x.failure_reason or x.failure_category then
    redis.call('HSET', base .. ':core', 'failure_reason', '', 'failure_category', '')
  end
  finish(tag, base, id, x, now, 'success', 'completed')
  return ok('completed')
end

-- KEYS: the core; to claim what comes next also the keys of ffx_claim. ARGV: id,
-- lease id, epoch, attempt id, source, result; to claim also the arguments of
-- ffx_claim. Answers completed, or repeated when the same holder had completed it
-- before, then what ffx_claim answers, or why it could not be made.
redis.register_function('ffx_complete', function(keys, a)
  local now, tag, x = now_ms(), tag_of(keys[1]), load_holder(keys[1])
  if not x then
    return err('execution_not_found')
  end
  local reply = complete(tag, base_of(tag, a[1]), a[1], x, now, a)
  if keys[2] and reply[1] == 1 then
    return then_claim(reply, {keys[2], keys[3]}, now, {unpack(a, 7)})
  end
  return reply
end)

-- KEYS: the core. ARGV: id, lease id, epoch, attempt id, source, reason, category,
-- 1 for no retry, the wait before a retry or an empty one for that of the policy.
-- Answers failed, retried or repeated, the public state, and when a retry is due.
redis.register_function('ffx_fail', function(keys, a)
  local now, tag, id, x = now_ms(), tag_of(keys[1]), a[1], load_holder(keys[1])
  local base = base_of(tag, id)
  if not x then
    return err('execution_not_found')
  end
  if x.lifecycle_phase == 'terminal' and x.terminal_outcome == 'failed' and own_earlier(x, a[3], a[4]) then
    return ok('repeated', x.public_state, '')
  elseif x.attempt_state == 'pending_retry_attempt' and a[3] ~= '' and x.current_lease_epoch == a[3]
    and redis.call('HGET', 'ff:attempt:' .. tag .. ':' .. id .. ':' .. x.current_attempt_index, 'attempt_id') == a[4] then
    return ok('repeated', x.public_state, x.eligibility_state == 'not_eligible_until_time' and redis.call('HGET', keys[1], 'delay_until') or '0')
  end
  local refused = check_holder(tag, base, id, x, a[2], a[3], a[4], a[5], now)
  if refused then
    return refused
  end
  local backoff
  if a[8] ~= '1' then
    backoff = backoff_of(id, x, policy_text(base, x), a[7])
    if backoff and a[9] ~= '' then
      backoff = assert(tonumber(a[9]))
    end
  end
  end_attempt(tag, id, x.current_attempt_index, 'ended_failure', now, a[6], a[7])
  if not backoff then
    finish(tag, base, id, x, now, 'failed', a[6], 'failure_reason', a[6], 'failure_category', a[7])
    return ok('failed', 'failed', '')
  end
  close_stream(stream_meta_key(keys[1], id, x.current_attempt_index), 'attempt_failure', now)
  return ok('retried', backoff > 0 and 'delayed' or 'waiting', plan_retry(tag, base, id, x, now, backoff, a[6], a[7]))
end)

-- KEYS: the core. ARGV: id, lease id, epoch, attempt id, source, until, for.
redis.register_function('ffx_delay', function(keys, a)
  local now, tag, id, x = now_ms(), tag_of(keys[1]), a[1], load_holder(keys[1])
  local base = base_of(tag, id)
  if not x then
    return err('execution_not_found')
  end
  local refused = check_holder(tag, base, id, x, a[2], a[3], a[4], a[5], now)
  if refused then
    return refused
  end
  local due = a[7] ~= '' and now + a[7] or assert(tonumber(a[6]))
  park(tag, base, id, x, now, due, 'worker_delay', 'worker_delay')
  return ok(due)
end)

-- KEYS: the core of the first. ARGV: reason, then per lease id, lease id, epoch,
-- attempt id. Answers per lease OK or the refusal.
redis.register_function('ffx_release', function(_, a)
  local now, replies = now_ms(), {}
  local function release(i)
    local id = a[i]
    local tag = tag_of(id)
    local base = base_of(tag, id)
    local x = load_holder(base .. ':core')
    if not x then
      return err('execution_not_found')
    end
    local refused = check_holder(tag, base, id, x, a[i + 1], a[i + 2], a[i + 3], '', now)
    if refused then
      return refused
    end
    park(tag, base, id, x, now, now, 'worker_release', a[1] ~= '' and a[1] or 'worker_release')
    return ok()
  end
  for i = 2, #a, 4 do
    local good, reply = pcall(release, i)
    replies[#replies + 1] = good and reply or err('corruption', tostring(reply))
  end
  return replies
end)

-- KEYS: the core. ARGV: id, lease id or empty, instance or empty, reason. Answers
-- revoked, the lease id and the epoch, or already and why there was nothing to do.
redis.register_function('ffx_revoke', function(keys, a)
  local now, tag, id, x = now_ms(), tag_of(keys[1]), a[1], load_holder(keys[1])
  if not x then
    return err('execution_not_found')
  end
  local already
  if x.lifecycle_phase ~= 'active' then
    already = 'no_active_lease'
  elseif x.ownership_state == 'lease_revoked' then
    already = 'already_revoked'
  elseif x.ownership_state == 'lease_expired_reclaimable' then
    already = 'already_expired'
  elseif a[3] ~= '' and a[3] ~= x.current_worker_instance_id then
    already = 'different_worker_instance_id'
  elseif a[2] ~= '' and a[2] ~= x.current_lease_id then
    return err('stale_lease', 'expected ' .. a[2] .. ' but current is ' .. (x.current_lease_id or ''))
  end
  if already then
    return ok('already', already, x.current_lease_id or '', x.current_lease_epoch or '')
  end
  redis.call('HSET', keys[1], 'ownership_state', 'lease_revoked', 'blocking_reason', 'waiting_for_worker',
    'blocking_detail', 'lease revoked: ' .. a[4], 'attempt_state', 'attempt_interrupted', 'lease_revoked_at', now,
    'lease_revoke_reason', a[4], 'last_mutation_at', now)
  redis.call('DEL', base_of(tag, id) .. ':lease:current')
  redis.call('ZREM', 'ff:idx:' .. tag .. ':lease_expiry', id)
  redis.call('ZREM', 'ff:idx:' .. tag .. ':attempt_timeout', id)
  redis.call('SREM', worker_leases_key(tag, x.current_worker_instance_id or ''), id)
  redis.call('ZADD', lost_key(tag, x.lane_id), score_of(x), id)
  emit_lease(tag, id, x, now, 'revoked', a[4])
  wake_lane(tag, x.lane_id)
  return ok('revoked', '', x.current_lease_id or '', x.current_lease_epoch or '')
end)
