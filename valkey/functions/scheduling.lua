-- Grants, claims and what decides about their order.
do

-- nil when the worker has every capability the execution requires, else the reply
-- that refuses it.
local function refuse_capabilities(core_key, required_csv, worker_csv, now)
  if not is_set(required_csv) and not is_set(worker_csv) then
    return nil
  end
  local required, fault = parse_capabilities(required_csv, 'required')
  if not required then
    return err('invalid_capabilities', fault)
  end
  local offered
  offered, fault = parse_capabilities(worker_csv, 'worker')
  if not offered then
    return err('invalid_capabilities', fault)
  end
  local missing = {}
  for token in pairs(required) do
    if not offered[token] then
      missing[#missing + 1] = token
    end
  end
  if #missing == 0 then
    return nil
  end
  table.sort(missing)
  redis.call('HSET', core_key, 'last_capability_mismatch_at', now)
  return err('capability_mismatch', table.concat(missing, ','))
end

-- A grant that has outlived its own time stands in nobody's way.
local function granted(grant_key, now)
  if redis.call('EXISTS', grant_key) == 0 then
    return false
  end
  local expires = tonumber(redis.call('HGET', grant_key, 'grant_expires_at') or '')
  if expires and expires < now then
    redis.call('DEL', grant_key)
    return false
  end
  return true
end

-- Both grants take the same arguments; returns when the grant runs out.
local function write_grant(grant_key, args, ttl, now)
  local expires = now + ttl
  redis.call('HSET', grant_key, 'worker_id', args[2], 'worker_instance_id', args[3], 'lane_id', args[4],
    'capability_hash', args[5] or '', 'route_snapshot_json', args[7] or '', 'admission_summary', args[8] or '',
    'created_at', now, 'grant_expires_at', expires)
  redis.call('PEXPIREAT', grant_key, expires)
  return expires
end

redis.register_function('ff_issue_claim_grant', function(keys, args)
  local core, grant, eligible = keys[1], keys[2], keys[3]
  local ttl, bad = number_arg(args[6], 'grant_ttl_ms')
  if not ttl then
    return bad
  elseif not is_whole(ttl) then
    return refuse('grant_ttl_ms', args[6])
  end
  local now = now_ms()
  local x = read(core, 'lifecycle_phase', 'eligibility_state', 'required_capabilities')
  if not x then
    return err('execution_not_found')
  elseif x.lifecycle_phase ~= 'runnable' or x.eligibility_state ~= 'eligible_now' then
    return err('execution_not_eligible')
  elseif granted(grant, now) then
    return err('grant_already_exists')
  elseif not redis.call('ZSCORE', eligible, args[1]) then
    return err('execution_not_in_eligible_set')
  end
  local refused = refuse_capabilities(core, x.required_capabilities, args[9], now)
  if refused then
    return refused
  end
  write_grant(grant, args, ttl, now)
  return ok(args[1])
end)

redis.register_function('ff_issue_reclaim_grant', function(keys, args)
  local core, grant = keys[1], keys[2]
  local ttl, bad = number_arg(args[6], 'grant_ttl_ms')
  if not ttl then
    return bad
  elseif not is_whole(ttl) then
    return refuse('grant_ttl_ms', args[6])
  end
  local now = now_ms()
  local x = read(core, 'lifecycle_phase', 'ownership_state', 'required_capabilities')
  if not x then
    return err('execution_not_found')
  elseif x.lifecycle_phase ~= 'active' or
      x.ownership_state ~= 'lease_expired_reclaimable' and x.ownership_state ~= 'lease_revoked' then
    return err('execution_not_reclaimable')
  elseif granted(grant, now) then
    return err('grant_already_exists')
  end
  local refused = refuse_capabilities(core, x.required_capabilities, args[9], now)
  if refused then
    return refused
  end
  return ok(args[1], tostring(write_grant(grant, args, ttl, now)))
end)

local function read_claimable(core_key)
  return read(core_key, 'lifecycle_phase', 'ownership_state', 'eligibility_state', 'terminal_outcome',
    'attempt_state', 'current_lease_epoch', 'current_attempt_index', 'current_attempt_id',
    'total_attempt_count', 'started_at')
end

-- What else a claim may set: the policy of the attempt as a flat list, its timeout and
-- the deadline of the execution; nil and a refusal when one of them cannot be used.
local function claim_options(policy, timeout, deadline)
  local o = {policy = {}}
  if is_set(policy) then
    local fields = decode(policy)
    if type(fields) ~= 'table' then
      return nil, refuse('attempt_policy_json', policy)
    end
    for name, value in pairs(fields) do
      append(o.policy, tostring(name), type(value) == 'table' and cjson.encode(value) or tostring(value))
    end
  end
  if is_set(timeout) and timeout ~= '0' then
    o.timeout = tonumber(timeout)
    if not o.timeout then
      return nil, refuse('attempt_timeout_ms', timeout)
    end
  end
  if is_set(deadline) and deadline ~= '0' then
    o.deadline = tonumber(deadline)
    if not o.deadline then
      return nil, refuse('execution_deadline_at', deadline)
    end
  end
  return o
end

-- The type of the next attempt and the fields that tell where it comes from.
local function attempt_origin(core_key, attempt_state)
  if attempt_state == 'pending_retry_attempt' then
    local x = read(core_key, 'pending_retry_reason', 'pending_previous_attempt_index')
    return 'retry', 'retry_reason', x.pending_retry_reason or '',
      'previous_attempt_index', x.pending_previous_attempt_index or ''
  elseif attempt_state == 'pending_replay_attempt' then
    local x = read(core_key, 'pending_replay_reason', 'pending_replay_requested_by', 'pending_previous_attempt_index')
    return 'replay', 'replay_reason', x.pending_replay_reason or '',
      'replay_requested_by', x.pending_replay_requested_by or '',
      'replayed_from_attempt_index', x.pending_previous_attempt_index or ''
  end
  return 'initial'
end

-- The end of a history entry.
local function stamp(reason, now)
  if reason then
    return 'reason', reason, 'ts', now
  end
  return 'ts', now
end

-- Starts the next attempt under the lease l and uses up the grant; k names the keys
-- and x is the core. Returns the type of the attempt.
local function claim_fresh(k, l, x, options, reason)
  redis.call('DEL', k.grant)
  local kind = add_attempt(k.core, k.attempts, l, attempt_origin(k.core, x.attempt_state))
  hset_all(attempt_key(k.core, l.execution_id, l.index) .. ':policy', options.policy)
  give_lease(k.core, k.lease, l, 'current_attempt_index', l.index, 'total_attempt_count', l.index + 1,
    'current_attempt_id', l.attempt_id, 'started_at', is_set(x.started_at) and x.started_at or l.now,
    'pending_retry_reason', '', 'pending_replay_reason', '', 'pending_replay_requested_by', '',
    'pending_previous_attempt_index', '')
  redis.call('ZREM', k.eligible, l.execution_id)
  index_lease(k.expiry, k.leases, k.active, l)
  if options.timeout then
    redis.call('ZADD', k.timeout, l.now + options.timeout, l.execution_id)
  end
  if options.deadline then
    redis.call('ZADD', k.deadline, options.deadline, l.execution_id)
  end
  add_history(k.history, 'acquired', 'lease_id', l.lease_id, 'lease_epoch', l.epoch,
    'attempt_id', l.attempt_id, 'attempt_index', l.index, 'worker_id', l.worker_id, stamp(reason, l.now))
  return kind
end

-- nil when the execution waits for a first claim, else the code that refuses it.
local function not_claimable(x)
  if x.lifecycle_phase ~= 'runnable' then
    return 'execution_not_leaseable'
  elseif x.ownership_state ~= 'unowned' then
    return 'lease_conflict'
  elseif x.eligibility_state ~= 'eligible_now' or x.terminal_outcome ~= 'none' then
    return 'execution_not_leaseable'
  elseif x.attempt_state == 'running_attempt' then
    return 'active_attempt_exists'
  elseif x.attempt_state == 'attempt_interrupted' then
    return 'use_claim_resumed_execution'
  end
end

-- nil when the grant is the worker's, else the code that refuses it.
local function wrong_grant(grant_key, worker_id, now)
  local grant = redis.call('HMGET', grant_key, 'worker_id', 'grant_expires_at')
  if grant[1] ~= worker_id then
    return 'invalid_claim_grant'
  elseif is_set(grant[2]) and tonumber(grant[2]) < now then
    return 'claim_grant_expired'
  end
end

redis.register_function('ff_claim_execution', function(keys, args)
  local ttl, bad = number_arg(args[7], 'lease_ttl_ms')
  if not ttl then
    return bad
  end
  local renew_after
  renew_after, bad = number_arg(args[8], 'renew_before_ms')
  if not renew_after then
    return bad
  end
  local k = {core = keys[1], grant = keys[2], eligible = keys[3], expiry = keys[4], leases = keys[5],
    attempts = keys[9], lease = keys[10], history = keys[11], active = keys[12],
    timeout = keys[13], deadline = keys[14]}
  local now = now_ms()
  local x = read_claimable(k.core)
  if not x then
    return err('execution_not_found')
  end
  local code = not_claimable(x) or wrong_grant(k.grant, args[2], now)
  if code then
    return err(code)
  end
  local options
  options, bad = claim_options(args[10], args[11], args[12])
  if not options then
    return bad
  end
  local l = {execution_id = args[1], worker_id = args[2], instance = args[3], lane = args[4],
    lease_id = args[6], attempt_id = args[9], epoch = number_of(x.current_lease_epoch) + 1,
    index = number_of(x.total_attempt_count), now = now, expires = now + ttl, renewal = now + renew_after}
  local kind = claim_fresh(k, l, x, options)
  return ok(l.lease_id, tostring(l.epoch), tostring(l.expires), l.attempt_id, tostring(l.index), kind)
end)

-- The interrupted attempt goes on under the lease l.
local function claim_interrupted(k, l)
  redis.call('DEL', k.grant)
  resume_attempt(attempt_key(k.core, l.execution_id, l.index), l)
  give_lease(k.core, k.lease, l)
  redis.call('ZREM', k.eligible, l.execution_id)
  index_lease(k.expiry, k.leases, k.active, l)
  add_history(k.history, 'acquired', 'lease_id', l.lease_id, 'lease_epoch', l.epoch,
    'attempt_index', l.index, 'attempt_id', l.attempt_id, 'worker_id', l.worker_id,
    stamp('issue_grant_and_claim_resumed', l.now))
end

-- nil when an operator may take the execution, else the code that refuses it. Work that
-- was interrupted is taken from wherever it waits.
local function not_takeable(k, x, id, now)
  if x.lifecycle_phase ~= 'runnable' then
    return 'execution_not_eligible'
  elseif x.ownership_state ~= 'unowned' then
    return 'lease_conflict'
  elseif x.terminal_outcome ~= 'none' then
    return 'execution_not_eligible'
  elseif x.attempt_state == 'running_attempt' then
    return 'active_attempt_exists'
  elseif granted(k.grant, now) then
    return 'grant_already_exists'
  elseif x.attempt_state == 'attempt_interrupted' then
    return nil
  elseif not redis.call('ZSCORE', k.eligible, id) then
    return 'execution_not_in_eligible_set'
  elseif x.eligibility_state ~= 'eligible_now' then
    return 'execution_not_eligible'
  end
end

-- The grant of this call would be gone at its end, so none is written.
redis.register_function('ff_issue_grant_and_claim', function(keys, args)
  local ttl, bad = number_arg(args[7], 'lease_ttl_ms')
  if not ttl then
    return bad
  elseif not is_whole(ttl) then
    return refuse('lease_ttl_ms', args[7])
  end
  local k = {core = keys[1], grant = keys[2], eligible = keys[3], expiry = keys[4], leases = keys[5],
    attempts = keys[6], lease = keys[7], history = keys[8], active = keys[9],
    timeout = keys[10], deadline = keys[11]}
  local now = now_ms()
  local x = read_claimable(k.core)
  if not x then
    return err('execution_not_found')
  end
  local code = not_takeable(k, x, args[1], now)
  if code then
    return err(code)
  end
  local l = {execution_id = args[1], worker_id = args[2], instance = args[3], lane = args[4],
    lease_id = args[6], attempt_id = args[8], epoch = number_of(x.current_lease_epoch) + 1,
    index = number_of(x.total_attempt_count), now = now, expires = now + ttl,
    renewal = now + math.floor(ttl * 2 / 3)}
  if x.attempt_state == 'attempt_interrupted' then
    l.attempt_id, l.index = x.current_attempt_id or '', x.current_attempt_index or ''
    claim_interrupted(k, l)
  else
    local options
    options, bad = claim_options(args[9], args[10], args[11])
    if not options then
      return bad
    end
    claim_fresh(k, l, x, options, 'issue_grant_and_claim')
  end
  return ok(l.lease_id, tostring(l.epoch), tostring(l.index))
end)

redis.register_function('ff_change_priority', function(keys, args)
  local core = keys[1]
  local priority, bad = number_arg(args[2], 'new_priority')
  if not priority then
    return bad
  elseif priority ~= priority then
    return refuse('new_priority', args[2])
  end
  local x = read(core, 'lifecycle_phase', 'eligibility_state', 'priority', 'created_at', 'lane_id')
  if not x then
    return err('execution_not_found')
  elseif x.lifecycle_phase ~= 'runnable' or x.eligibility_state ~= 'eligible_now' then
    return err('execution_not_eligible')
  end
  priority = clamp_priority(priority)
  local eligible = is_set(x.lane_id) and lane_key(tag_of(core), x.lane_id, 'eligible') or keys[2]
  redis.call('HSET', core, 'priority', priority, 'last_mutation_at', now_ms())
  redis.call('ZADD', eligible, priority_score(number_of(x.created_at), priority), args[1])
  return ok(x.priority or '', tostring(priority))
end)

-- The caller's clock decides what is due.
redis.register_function('ff_promote_delayed', function(keys, args)
  local core, delayed, eligible = keys[1], keys[2], keys[3]
  local id = args[1]
  local now, bad = number_arg(args[2], 'now_ms')
  if not now then
    return bad
  end
  local x = read(core, 'lifecycle_phase', 'eligibility_state', 'delay_until', 'created_at', 'priority', 'lane_id')
  local stray = not x and 'not_found_cleaned'
    or x.lifecycle_phase ~= 'runnable' and 'not_runnable_cleaned'
    or x.eligibility_state ~= 'not_eligible_until_time' and 'not_delayed_cleaned'
  if stray then
    redis.call('ZREM', delayed, id)
    return ok(stray)
  elseif number_of(x.delay_until) > now then
    return ok('not_yet_due')
  end

  -- The state of the attempt stays: it tells how the execution is claimed next.
  redis.call('HSET', core, 'lifecycle_phase', 'runnable', 'ownership_state', 'unowned',
    'eligibility_state', 'eligible_now', 'blocking_reason', 'waiting_for_worker', 'blocking_detail', '',
    'terminal_outcome', 'none', 'public_state', 'waiting', 'delay_until', '',
    'last_transition_at', now, 'last_mutation_at', now)
  line_up(delayed, eligible, id, x)
  return ok('promoted')
end)

end
