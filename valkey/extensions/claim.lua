local function is_waiting(x)
  return x.lifecycle_phase == 'runnable' and x.ownership_state == 'unowned' and x.eligibility_state == 'eligible_now'
end

local function is_lost(x)
  return x.lifecycle_phase == 'active'
    and (x.ownership_state == 'lease_expired_reclaimable' or x.ownership_state == 'lease_revoked')
end

-- Notes that a partition has executions of a lane; answers 1 when that is news. Who
-- waits for the lane has no mark on the partition then, and is told.
local function note_lane(tag, lane)
  local news = redis.call('SADD', 'ffx:idx:' .. tag .. ':lanes', lane)
  if news == 1 then
    redis.call('PUBLISH', 'ffx:wake', tag .. lane)
  end
  return news
end

-- A grant keeps an execution for its grantee. What has lapsed is taken back by
-- the sweep of delayed executions.
local function is_granted(base)
  return redis.call('EXISTS', base .. ':claim_grant') == 1
end

-- Whether a set of capabilities, as parse_capabilities makes it, has all that is
-- required.
local function satisfies(offered, required)
  if required then
    for token in string.gmatch(required, '[^,]+') do
      if not offered[token] then
        return false
      end
    end
  end
  return true
end

local function missing_capabilities(offered, required)
  local list = {}
  for token in string.gmatch(required, '[^,]+') do
    if not offered[token] then
      list[#list + 1] = token
    end
  end
  table.sort(list)
  return table.concat(list, ',')
end

local function lost_key(tag, lane)
  return 'ffx:idx:' .. tag .. ':lane:' .. lane .. ':lost'
end

-- Ends the record of an attempt, with more fields in pairs.
local function end_attempt(tag, id, index, state, now, reason, category, ...)
  redis.call('HSET', 'ff:attempt:' .. tag .. ':' .. id .. ':' .. index, 'attempt_state', state, 'ended_at', now,
    'failure_reason', reason, 'failure_category', category, ...)
end

-- Ends the latest attempt, unless it has ended.
local function end_open_attempt(tag, id, x, state, now, reason, category)
  if x.current_attempt_index
    and not is_set(redis.call('HGET', 'ff:attempt:' .. tag .. ':' .. id .. ':' .. x.current_attempt_index, 'ended_at')) then
    end_attempt(tag, id, x.current_attempt_index, state, now, reason, category)
  end
end

-- The longest time that anything takes, ten years: peers may write policies that ask
-- for more than an instant can hold.
local LONGEST = 315360000000

-- A claim that gives a lease: tag, base and id of the execution, x its record, now, w
-- who claims, for how long and under which ids, and policy its text.

-- Gives the lease. More fields of the core may follow in pairs. Marks of earlier leases
-- are cleared, so that this one can be renewed.
local function acquire(c, ...)
  local tag, base, id, x, now, w = c.tag, c.base, c.id, c.x, c.now, c.w
  local expires = now + w.ttl
  local timeout = math.min(number_or(member(policy_of(c.policy, 'attempt_timeout_ms'), 'timeout_policy').attempt_timeout_ms, 0), LONGEST)
  local timeout_at = timeout > 0 and now + timeout or ''
  set_state(base .. ':core', now, 'active', 'leased', 'not_applicable', 'none', '', 'none', 'running_attempt', 'active',
    'current_lease_id', w.lease_id, 'current_lease_epoch', w.epoch, 'own_epoch', w.epoch, 'current_worker_id', w.worker,
    'current_worker_instance_id', w.instance, 'current_lane', x.lane_id, 'lease_acquired_at', now, 'lease_expires_at', expires,
    'lease_last_renewed_at', now, 'lease_renewal_deadline', now + math.floor(w.ttl * 2 / 3), ...)
  if x.lease_expired_at or x.lease_revoked_at then
    redis.call('HSET', base .. ':core', 'lease_expired_at', '', 'lease_revoked_at', '', 'lease_revoke_reason', '')
  end
  if timeout > 0 or x.attempt_timeout_at then
    redis.call('HSET', base .. ':core', 'attempt_timeout_at', timeout_at)
  end
  redis.call('ZADD', 'ff:idx:' .. tag .. ':lease_expiry', expires, id)
  redis.call('SADD', worker_leases_key(tag, w.instance), id)
  redis.call('ZADD', lane_key(tag, x.lane_id, 'active'), expires, id)
  if timeout > 0 then
    redis.call('ZADD', 'ff:idx:' .. tag .. ':attempt_timeout', timeout_at, id)
  elseif x.total_attempt_count ~= '0' then
    redis.call('ZREM', 'ff:idx:' .. tag .. ':attempt_timeout', id)
  end
end

-- Starts a new attempt under a new lease; lineage are more fields of the attempt, in
-- pairs.
local function start_attempt(c, kind, reclaims, lineage)
  local tag, id, x, now, w = c.tag, c.id, c.x, c.now, c.w
  local index = assert(tonumber(x.total_attempt_count))
  redis.call('HSET', 'ff:attempt:' .. tag .. ':' .. id .. ':' .. index, 'attempt_id', w.attempt_id, 'execution_id', id,
    'attempt_index', index, 'attempt_type', kind, 'attempt_state', 'started', 'created_at', now, 'started_at', now,
    'lease_id', w.lease_id, 'lease_epoch', w.epoch, 'worker_id', w.worker, 'worker_instance_id', w.instance, unpack(lineage))
  redis.call('ZADD', c.base .. ':attempts', now, index)
  acquire(c, 'current_attempt_index', index, 'total_attempt_count', index + 1,
    'current_attempt_id', w.attempt_id, 'started_at', x.started_at or now, 'lease_reclaim_count', reclaims)
  if kind == 'retry' or kind == 'replay' or x.pending_retry_reason then
    redis.call('HSET', c.base .. ':core', 'pending_retry_reason', '', 'pending_replay_reason', '',
      'pending_replay_requested_by', '', 'pending_previous_attempt_index', '')
  end
  return index
end

-- Goes on with the latest attempt. Answers that attempt as it was.
local function go_on(c)
  local x, w = c.x, c.w
  local attempt = 'ff:attempt:' .. c.tag .. ':' .. c.id .. ':' .. assert(x.current_attempt_index)
  local before = redis.call('HGETALL', attempt)
  resume_attempt(attempt, {now = c.now, lease_id = w.lease_id, epoch = w.epoch, worker_id = w.worker, instance = w.instance})
  acquire(c)
  emit(c.tag, c.id, c.now, 'acquired', w.lease_id, w.epoch, x.current_attempt_id, x.current_attempt_index, w.worker, w.instance,
    'claim_resumed', nil, x.flow_id)
  return before
end

-- Takes an execution over from a lost lease. Beyond the limit of takeovers it
-- fails instead; the limit is returned then.
local function reclaim(c)
  local tag, base, id, x, now, w = c.tag, c.base, c.id, c.x, c.now, c.w
  local limit = number_or(policy_of(c.policy, 'max_reclaim_count').max_reclaim_count, 100)
  local count = number_or(x.lease_reclaim_count, 0)
  local old = assert(x.current_attempt_index)
  redis.call('ZREM', lost_key(tag, x.lane_id), id)
  redis.call('DEL', base .. ':lease:current')
  if x.current_worker_instance_id then
    redis.call('SREM', worker_leases_key(tag, x.current_worker_instance_id), id)
  end
  if count >= limit then
    end_attempt(tag, id, old, 'ended_failure', now, 'max_reclaims_exceeded', '')
    finish(tag, base, id, x, now, 'failed', 'max_reclaims_exceeded', 'failure_reason', 'max_reclaims_exceeded')
    return limit
  end
  local cause = 'lease_' .. x.ownership_state
  end_attempt(tag, id, old, 'interrupted_reclaimed', now, cause, '')
  close_stream(stream_meta_key('ff:exec:' .. tag, id, old), 'reclaimed', now, false, tag, id)
  local index = start_attempt(c, 'reclaim', count + 1, {'reclaim_reason', cause, 'previous_attempt_index', old})
  emit(tag, id, now, 'reclaimed', w.lease_id, w.epoch, w.attempt_id, index, w.worker, w.instance, nil, nil, x.flow_id)
end

-- Why a new attempt starts: its type, and the fields that say more.
local function origin_of(x)
  if x.attempt_state == 'pending_retry_attempt' then
    return 'retry', {'retry_reason', x.pending_retry_reason or '', 'previous_attempt_index', x.pending_previous_attempt_index or ''}
  elseif x.attempt_state == 'pending_replay_attempt' then
    return 'replay', {'replay_reason', x.pending_replay_reason or '', 'replay_requested_by', x.pending_replay_requested_by or '',
      'replayed_from_attempt_index', x.pending_previous_attempt_index or ''}
  end
  return 'initial', {}
end

local function start_fresh(c)
  local x, w, kind, lineage = c.x, c.w, origin_of(c.x)
  local index = start_attempt(c, kind, x.lease_reclaim_count or 0, lineage)
  emit(c.tag, c.id, c.now, 'acquired', w.lease_id, w.epoch, w.attempt_id, index, w.worker, w.instance, nil, nil, x.flow_id)
end

-- Peers set and drop deadlines in the index alone: the record follows it.
local function correct_deadline(tag, base, id, x, values)
  if not x.execution_deadline_at and x.has_policy and x.attempt_state == 'pending_first_attempt' then
    return -- we wrote it, and nobody has touched it since
  end
  local at = redis.call('ZSCORE', 'ff:idx:' .. tag .. ':execution_deadline', id) or ''
  if at ~= (x.execution_deadline_at or '') then
    redis.call('HSET', base .. ':core', 'execution_deadline_at', at)
    values[#values + 1] = 'execution_deadline_at'
    values[#values + 1] = at
  end
end

-- Claims an execution that is waiting or lost. Answers what the store makes the
-- claimed record of: the id, how it was claimed, the input, the policy, the
-- record before, its tags, the attempt before when it goes on. Nothing and the
-- limit when a takeover was one too many.
local function take(tag, base, id, x, values, now, w)
  local c = {tag = tag, base = base, id = id, x = x, now = now, w = w, policy = policy_text(base, x)}
  w.epoch = assert(tonumber(x.current_lease_epoch)) + 1
  local how, before = 'fresh', {}
  correct_deadline(tag, base, id, x, values)
  if is_lost(x) then
    how = 'reclaimed'
    local limit = reclaim(c)
    if limit then
      return nil, limit
    end
  else
    redis.call('ZREM', lane_key(tag, x.lane_id, 'eligible'), id)
    if x.attempt_state == 'attempt_interrupted' then
      how, before = 'resumed', go_on(c)
    else
      start_fresh(c)
    end
  end
  return {id, how, redis.call('GET', base .. ':payload') or '', c.policy or '', values, redis.call('HGETALL', base .. ':tags'), before,
    w.lease_id, w.attempt_id}
end

-- Goes through the executions of a lane that may be claimed, first those to claim
-- first, and calls try(id) for each until it answers that it has enough. What try
-- takes leaves its index; skipped counts what it left, per index.
local function each_candidate(indexes, skipped, budget, try)
  local chunk, done = 1, false
  while not done and budget > 0 do
    local lists = {}
    for i, key in ipairs(indexes) do
      lists[i] = redis.call('ZRANGE', key, skipped[i], skipped[i] + chunk - 1, 'WITHSCORES')
    end
    local at = {1, 1}
    while not done do
      local best
      for i, list in ipairs(lists) do
        if not list[at[i]] and #list == 2 * chunk then
          best = nil -- this list goes on: read further before choosing
          break
        end
        if list[at[i]] and (not best or tonumber(list[at[i] + 1]) < tonumber(lists[best][at[best] + 1])) then
          best = i
        end
      end
      if not best then
        break
      end
      local left
      left, done = try(lists[best][at[best]])
      at[best], budget = at[best] + 2, budget - 1
      if left then
        skipped[best] = skipped[best] + 1
      end
    end
    local full = false
    for _, list in ipairs(lists) do
      full = full or #list == 2 * chunk
    end
    if not full then
      return false
    end
    chunk = math.min(chunk * 4, 64)
  end
  return not done
end

local function read_claimant(a, lease_id, attempt_id)
  return {worker = a[2], instance = a[3], ttl = assert(tonumber(a[5])), lease_id = lease_id, attempt_id = attempt_id}
end

-- How many candidates one call looks at: others want the server too.
local BUDGET = 500

-- The claim of ffx_claim, from the indexes keys with the arguments a.
local function claim(keys, now, a)
  local tag, max, max_bytes = tag_of(keys[1]), tonumber(a[6]), tonumber(a[7])
  local skipped, offered, claimed, bytes, unreadable, picky = {tonumber(a[8]), tonumber(a[9])}, nil, {}, 0, 0, false
  local function try(id)
    local base = base_of(tag, id)
    -- Where one needs what the claimant lacks many do: of the next only that is read.
    if picky and not satisfies(offered, redis.call('HGET', base .. ':core', 'required_capabilities')) then
      return true, false
    end
    local x, values = load(base .. ':core')
    if not x then
      redis.call('ZREM', keys[1], id)
      redis.call('ZREM', keys[2], id)
      return false, false
    end
    if not (is_waiting(x) or is_lost(x)) then
      -- A peer took it over, or ended it: it is not lost any more.
      return redis.call('ZREM', keys[2], id) == 0, false
    elseif is_granted(base) then
      return true, false
    end
    if x.required_capabilities then
      offered = offered or parse_capabilities(a[4], 'worker')
      if not satisfies(offered, x.required_capabilities) then
        picky = true
        return true, false
      end
    end
    local n = #claimed
    local got = take(tag, base, id, x, values, now, read_claimant(a, a[10 + 2 * n], a[11 + 2 * n]))
    if got then
      claimed[n + 1], bytes = got, bytes + #got[3]
    end
    return false, #claimed >= max or bytes >= max_bytes
  end
  local more = each_candidate(keys, skipped, BUDGET, function(id)
    local good, left, done = pcall(try, id)
    if good then
      return left, done
    end
    unreadable = unreadable + 1
    return true, false
  end)
  return {now, more and 1 or 0, skipped[1], skipped[2], unreadable, claimed}
end

-- KEYS: the eligible index of a lane on a partition, its lost index. ARGV: lane,
-- worker, instance, capabilities, lease TTL, maximum, maximum of input bytes, how
-- many to skip of each index, then a lease id and an attempt id per execution.
-- Answers now, whether there is more to look at, how many were skipped of each
-- index, how many were unreadable, and what was claimed.
redis.register_function('ffx_claim', function(keys, a)
  return claim(keys, now_ms(), a)
end)

-- Appends what a claim answers to the reply of the command before it, which it
-- cannot undo: when the claim breaks, the reason is appended instead.
local function then_claim(reply, keys, now, a)
  local good, parts = pcall(claim, keys, now, a)
  if not good then
    parts = {type(parts) == 'table' and parts.err or tostring(parts)}
  end
  for _, part in ipairs(parts) do
    reply[#reply + 1] = part
  end
  return reply
end

-- Why an execution cannot be claimed, as a reply; nil when it can.
local function not_claimable(x)
  if is_waiting(x) or is_lost(x) then
    return
  end
  if x.lifecycle_phase == 'active' and x.ownership_state == 'leased' then
    return err('lease_conflict', 'leased to worker "' .. (x.current_worker_id or '') .. '"')
  end
  return err('execution_not_leaseable', 'the execution is ' .. (x.public_state or ''))
end

-- KEYS: the core. ARGV: id, worker, instance, capabilities, lease TTL, lease id,
-- attempt id. Answers now and what was claimed.
redis.register_function('ffx_claim_granted', function(keys, a)
  local now, tag, id = now_ms(), tag_of(keys[1]), a[1]
  local base = base_of(tag, id)
  local x, values = load(keys[1])
  if not x then
    return err('execution_not_found')
  end
  local refused = not_claimable(x)
  if refused then
    return refused
  end
  local grant = redis.call('HMGET', base .. ':claim_grant', 'worker_id', 'grant_expires_at')
  if not grant[1] then
    return err('invalid_claim_grant', 'there is no grant; it was used or has lapsed')
  elseif grant[1] ~= a[2] then
    return err('invalid_claim_grant', 'granted to worker "' .. grant[1] .. '"')
  elseif number_or(grant[2], 0) < now then
    return err('claim_grant_expired')
  end
  local offered = parse_capabilities(a[4], 'worker')
  if not satisfies(offered, x.required_capabilities) then
    return err('capability_mismatch', missing_capabilities(offered, x.required_capabilities))
  end
  local got, limit = take(tag, base, id, x, values, now, read_claimant(a, a[6], a[7]))
  drop_grant(tag, base, id)
  if not got then
    return err('max_retries_exhausted', tostring(limit))
  end
  return ok(now, got)
end)

-- Reserves an execution. The key outlives the grant for a while, so that a claim
-- with it is told that it has lapsed; the sweep removes it in time.
local GRANT_KEPT = 600000

local function grant(tag, base, id, now, worker, instance, lane, ttl, capability, route, summary)
  local expires = now + ttl
  redis.call('HSET', base .. ':claim_grant', 'worker_id', worker, 'worker_instance_id', instance, 'lane_id', lane,
    'capability_hash', capability, 'route_snapshot_json', route, 'admission_summary', summary, 'created_at', now, 'grant_expires_at', expires)
  redis.call('PEXPIREAT', base .. ':claim_grant', expires + GRANT_KEPT)
  redis.call('ZADD', 'ffx:idx:' .. tag .. ':grants', expires, id)
  tell_due('delayed_promoter', expires)
  return expires
end

-- KEYS: the eligible index. ARGV: lane, worker, instance, capabilities, grant TTL,
-- how many to skip. Answers now, whether there is more to look at, how many were
-- skipped, and the id and the end of the grant.
redis.register_function('ffx_grant_next', function(keys, a)
  local now, tag = now_ms(), tag_of(keys[1])
  local skipped, offered, granted, expires = {tonumber(a[6])}, parse_capabilities(a[4], 'worker'), '', ''
  local function try(id)
    local base = base_of(tag, id)
    local x = load(base .. ':core')
    if not x or not is_waiting(x) or not satisfies(offered, x.required_capabilities) or is_granted(base) then
      return true, false
    end
    granted, expires = id, grant(tag, base, id, now, a[2], a[3], x.lane_id, tonumber(a[5]), '', '', '')
    return false, true
  end
  local more = each_candidate({keys[1]}, skipped, BUDGET, function(id)
    local good, left, done = pcall(try, id)
    return not good or left, good and done
  end)
  return {now, more and 1 or 0, skipped[1], granted, expires}
end)

-- KEYS: the core. ARGV: id, worker, instance, capabilities, grant TTL, capability
-- hash, route, admission summary. Answers the lane and the end of the grant.
redis.register_function('ffx_grant_reclaim', function(keys, a)
  local now, tag, id = now_ms(), tag_of(keys[1]), a[1]
  local base = base_of(tag, id)
  local x = load(keys[1])
  if not x then
    return err('execution_not_found')
  end
  if not is_lost(x) then
    return err('execution_not_reclaimable', 'the execution is ' .. (x.public_state or '') .. ' and its lease is ' .. (x.ownership_state or ''))
  end
  local until_ms = redis.call('HGET', base .. ':claim_grant', 'grant_expires_at')
  if until_ms and number_or(until_ms, 0) >= now then
    return err('grant_already_exists')
  end
  local offered = parse_capabilities(a[4], 'worker')
  if not satisfies(offered, x.required_capabilities) then
    return err('capability_mismatch', missing_capabilities(offered, x.required_capabilities))
  end
  return ok(x.lane_id, grant(tag, base, id, now, a[2], a[3], x.lane_id, tonumber(a[5]), a[6], a[7], a[8]))
end)
