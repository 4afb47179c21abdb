-- Reading and writing the record of an execution.

-- Reads a whole record: a table by field without those that are empty, and the
-- fields and values as they are stored. Nil when there is no such execution.
local function load(core)
  local values, x = redis.call('HGETALL', core), {}
  if #values == 0 then
    return nil
  end
  for i = 1, #values, 2 do
    local v = values[i + 1]
    if v ~= '' then
      x[values[i]] = v
    end
  end
  return x, values
end

-- The keys of an execution: its base and that of its attempts.
local function base_of(tag, id)
  return 'ff:exec:' .. tag .. ':' .. id
end

-- Writes the state vector with more fields, in one call.
local function set_state(core, now, phase, ownership, eligibility, blocking, detail, outcome, attempt, public, ...)
  redis.call('HSET', core, 'lifecycle_phase', phase, 'ownership_state', ownership, 'eligibility_state', eligibility,
    'blocking_reason', blocking, 'blocking_detail', detail, 'terminal_outcome', outcome, 'attempt_state', attempt,
    'public_state', public, 'last_transition_at', now, 'last_mutation_at', now, ...)
end

local function score_of(x)
  return priority_score(x.created_at, x.priority or 0)
end

-- The index of its lane that an execution is in, by its state.
local HOME = {
  eligible_now = 'eligible', not_eligible_until_time = 'delayed', blocked_by_dependencies = 'blocked:dependencies',
  blocked_by_budget = 'blocked:budget', blocked_by_quota = 'blocked:quota', blocked_by_route = 'blocked:route',
  blocked_by_operator = 'blocked:operator',
}
local function home_of(x)
  if x.lifecycle_phase == 'active' then
    return 'active'
  elseif x.lifecycle_phase == 'suspended' then
    return 'suspended'
  elseif x.lifecycle_phase == 'terminal' then
    return 'terminal'
  end
  return HOME[x.eligibility_state]
end

-- The indexes of a lane: an execution is in one. The order is that of laneIndexes and
-- countedIndexes in Go.
local LANE_INDEXES = {'eligible', 'delayed', 'active', 'terminal', 'suspended', 'blocked:dependencies', 'blocked:budget', 'blocked:quota',
  'blocked:route', 'blocked:operator'}

-- The outcomes that have an index of their own.
local OUTCOMES = {'failed', 'cancelled', 'expired', 'skipped'}

local function outcome_key(tag, lane, outcome)
  return 'ffx:idx:' .. tag .. ':lane:' .. lane .. ':outcome:' .. outcome
end

-- How long the list of an execution's own events may get, in bytes, and how much of
-- its end is kept then: more than a thousand events, as in a lease history.
local EVENT_LIST, EVENT_LIST_KEPT = 40000, 24000

-- Notes where in the log an event of an execution is.
local function list_event(key, entry)
  if redis.call('APPEND', key, entry .. ' ') > EVENT_LIST then
    local kept = redis.call('GETRANGE', key, -EVENT_LIST_KEPT, -1)
    redis.call('SET', key, string.sub(kept, string.find(kept, ' ', 1, true) + 1))
  end
end

-- Appends to the log of the partition and to the list of the execution's own
-- events, and tells a reader that waits, if there is one. What an event has more than
-- others begins with a NUL.
local function emit(tag, id, now, kind, lease_id, epoch, attempt_id, index, worker, instance, reason, outcome, flow_id, more)
  local log = 'ffx:part:' .. tag .. ':events'
  local entry = redis.call('XADD', log, '*', 'e', table.concat({now, kind, id, lease_id or '', epoch or '', attempt_id or '',
    index or '', worker or '', instance or '', reason or '', outcome or '', flow_id or ''}, '\0') .. (more or ''))
  list_event('ffx:exec:' .. tag .. ':' .. id .. ':events', entry)
  if redis.call('DEL', log .. ':waiting') == 1 then
    redis.call('PUBLISH', 'ffx:event', tag)
  end
end

-- An event about the lease in force.
local function emit_lease(tag, id, x, now, kind, reason)
  emit(tag, id, now, kind, x.current_lease_id, x.current_lease_epoch, x.current_attempt_id, x.current_attempt_index,
    x.current_worker_id, x.current_worker_instance_id, reason, nil, x.flow_id)
end

-- Tells the loops of engines that something may be due earlier than they know.
local function tell_due(kind, at)
  redis.call('PUBLISH', 'ffx:due', kind .. ' ' .. at)
end

-- The text of an execution's policy; nil when it has none. Records that we created
-- say so themselves.
local function policy_text(base, x)
  if x.has_policy == '0' then
    return nil
  end
  local text = redis.call('GET', base .. ':policy')
  if text and text ~= '' and text ~= '{}' then
    return text
  end
end

-- A policy decoded; an empty table when there is none. With a word it is decoded
-- only when the word is in it, because most policies are asked for one member.
local function policy_of(text, word)
  if text and (not word or string.find(text, word, 1, true)) then
    local p = decode(text)
    if type(p) == 'table' then
      return p
    end
  end
  return {}
end

-- A member of a policy that is an object; an empty one when it is absent.
local function member(object, name)
  local v = object[name]
  return type(v) == 'table' and v or {}
end

-- A number kept in a hash or a policy; the default when there is none.
local function number_or(v, default)
  return tonumber(v) or default
end

-- Removes a grant that was used or has lost its object.
local function drop_grant(tag, base, id)
  if redis.call('DEL', base .. ':claim_grant') == 1 then
    redis.call('ZREM', 'ffx:idx:' .. tag .. ':grants', id)
  end
end

-- How a stream closes with its execution.
local CLOSED = {success = 'attempt_success', failed = 'attempt_failure', cancelled = 'attempt_cancelled', expired = 'expired'}
local PUBLIC = {success = 'completed', failed = 'failed', cancelled = 'cancelled', expired = 'expired'}

-- Removes what a lease may have besides its places in the indexes: a timeout, and
-- with a peer's lease its own record. Our leases have the mark own_epoch.
local function drop_lease_parts(tag, id, x)
  local ours = x.own_epoch and x.own_epoch == x.current_lease_epoch
  if not ours or x.attempt_timeout_at then
    redis.call('ZREM', 'ff:idx:' .. tag .. ':attempt_timeout', id)
  end
  if not ours then
    redis.call('DEL', base_of(tag, id) .. ':lease:current')
  end
end

-- Takes an execution from the index of its lane and from those by time.
local function leave_indexes(tag, id, x)
  local home = home_of(x)
  if home then
    redis.call('ZREM', lane_key(tag, x.lane_id, home), id)
  end
  if x.lifecycle_phase == 'active' then
    redis.call('ZREM', 'ff:idx:' .. tag .. ':lease_expiry', id)
    drop_lease_parts(tag, id, x)
    if x.current_worker_instance_id then
      redis.call('SREM', worker_leases_key(tag, x.current_worker_instance_id), id)
    end
    if x.ownership_state ~= 'leased' then
      redis.call('ZREM', 'ffx:idx:' .. tag .. ':lane:' .. x.lane_id .. ':lost', id)
    end
  end
end

-- Makes an execution terminal. More fields of the core may follow in pairs.
local function finish(tag, base, id, x, now, outcome, reason, ...)
  leave_indexes(tag, id, x)
  redis.call('ZREM', 'ff:idx:' .. tag .. ':execution_deadline', id)
  if x.ownership_state ~= 'leased' then
    drop_grant(tag, base, id)
  end
  set_state(base .. ':core', now, 'terminal', 'unowned', 'not_applicable', 'none', '', outcome,
    x.current_attempt_index and 'attempt_terminal' or x.attempt_state, PUBLIC[outcome], 'completed_at', now,
    'current_lease_id', '', 'current_worker_id', '', 'current_worker_instance_id', '', 'lease_expires_at', '',
    'lease_last_renewed_at', '', 'lease_renewal_deadline', '', ...)
  redis.call('ZADD', lane_key(tag, x.lane_id, 'terminal'), now, id)
  if outcome ~= 'success' then
    redis.call('ZADD', 'ffx:idx:' .. tag .. ':lane:' .. x.lane_id .. ':outcome:' .. outcome, x.created_at, id)
  end
  local own = number_or(member(policy_of(policy_text(base, x), 'retention_ttl_ms'), 'stream_policy').retention_ttl_ms, 0)
  if own > 0 then
    redis.call('ZADD', 'ffx:idx:' .. tag .. ':retention', now + own, id)
  end
  if x.current_attempt_index then
    close_stream(stream_meta_key('ff:exec:' .. tag, id, x.current_attempt_index), CLOSED[outcome], now, false, tag, id)
  else
    wake_tails(tag, id)
  end
  emit(tag, id, now, 'completion', x.current_lease_id, x.current_lease_epoch, x.current_attempt_id, x.current_attempt_index,
    x.current_worker_id, x.current_worker_instance_id, reason, outcome, x.flow_id)
  publish_completion(x.flow_id, id, outcome)
end
