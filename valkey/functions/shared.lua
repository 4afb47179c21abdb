-- Shared parts of all functions. Top-level code may only define locals and
-- register functions: the globals of Lua are not there while a library loads.

-- The server's clock in whole milliseconds.
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- A field or argument is set when it is there and not empty.
local function is_set(v)
  return v and v ~= ''
end

local function ok(...)
  return {1, 'OK', ...}
end

local function err(code, ...)
  return {0, code, ...}
end

-- Reads some fields of a hash: a table by name, without those that are missing;
-- nil when there is no such hash.
local function read(key, ...)
  local values, x, found = redis.call('HMGET', key, ...), {}, false
  for i, name in ipairs({...}) do
    local v = values[i]
    if v then
      x[name], found = v, true
    end
  end
  if not found and redis.call('EXISTS', key) == 0 then
    return nil
  end
  return x
end

-- A number argument, or nil and the reply that refuses it.
local function number_arg(raw, name)
  local n = tonumber(raw)
  if n then
    return n
  end
  return nil, err('invalid_input', name .. ' must be a number, got: ' .. tostring(raw))
end

-- A whole hash by name.
local function read_all(key)
  local flat, h = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do
    h[flat[i]] = flat[i + 1]
  end
  return h
end

-- The hash tag of a key with its braces: the first {…}.
local function tag_of(key)
  return string.match(key, '{[^}]*}')
end

-- Decodes JSON; nil when it is malformed.
local function decode(text)
  local good, value = pcall(cjson.decode, text)
  if good then
    return value
  end
end

-- Lower scores are claimed first: the higher priority, then the older.
local function priority_score(created_at, priority)
  return created_at - priority * 1000000000000
end

-- Appends to the lease history of an execution.
local function add_history(key, ...)
  redis.call('XADD', key, 'MAXLEN', '~', '1000', '*', 'event', ...)
end

-- Wakes those who wait for frames of an execution. They leave a mark, so that nothing is
-- published while nobody waits.
local function wake_tails(tag, execution_id)
  if redis.call('DEL', 'ffx:exec:' .. tag .. ':' .. execution_id .. ':tails') == 1 then
    redis.call('PUBLISH', 'ffx:stream', execution_id)
  end
end

-- Closes an output stream, if there is one, and tells those who wait for its frames,
-- also when there was none. One that is closed keeps its end when only_open is set.
-- Without the tag and the execution they are taken from the key.
local function close_stream(meta_key, reason, now, only_open, tag, execution_id)
  if not tag then
    tag, execution_id = string.match(meta_key, '^ff:stream:({[^}]*}):(.*):[^:]*:meta$')
  end
  if redis.call('EXISTS', meta_key, tag and 'ffx:exec:' .. tag .. ':' .. execution_id .. ':tails' or meta_key) == 0 then
    return
  end
  if redis.call('EXISTS', meta_key) == 1 and not (only_open and is_set(redis.call('HGET', meta_key, 'closed_at'))) then
    redis.call('HSET', meta_key, 'closed_at', now, 'closed_reason', reason)
  end
  if tag then
    wake_tails(tag, execution_id)
  end
end

-- Tells the engines that a member of a flow has ended.
local function publish_completion(flow_id, execution_id, outcome)
  if is_set(flow_id) then
    redis.call('PUBLISH', 'ff:dag:completions',
      cjson.encode({execution_id = execution_id, flow_id = flow_id, outcome = outcome}))
  end
end

-- The keys of one execution and of its partition, made from the key of its core.
local function attempt_key(core_key, execution_id, index)
  return 'ff:attempt:' .. tag_of(core_key) .. ':' .. execution_id .. ':' .. index
end

local function stream_meta_key(core_key, execution_id, index)
  return 'ff:stream:' .. tag_of(core_key) .. ':' .. execution_id .. ':' .. index .. ':meta'
end

local function lane_key(tag, lane, index)
  return 'ff:idx:' .. tag .. ':lane:' .. lane .. ':' .. index
end

local function worker_leases_key(tag, instance)
  return 'ff:idx:' .. tag .. ':worker:' .. instance .. ':leases'
end

-- execution_not_active with what lets a holder recognise its own earlier call.
local function not_active(x)
  return err('execution_not_active', x.terminal_outcome or '', x.current_lease_epoch or '',
    x.lifecycle_phase or '', x.current_attempt_id or '')
end

-- Records that the lease has lapsed, once. The fields needed of the core are
-- those of the fence below.
local function mark_expired(core_key, history_key, x, now)
  if x.ownership_state == 'lease_expired_reclaimable' then
    return
  end
  redis.call('HSET', core_key,
    'lifecycle_phase', x.lifecycle_phase or '', 'ownership_state', 'lease_expired_reclaimable',
    'eligibility_state', x.eligibility_state or '', 'blocking_reason', 'waiting_for_worker',
    'blocking_detail', 'lease expired, awaiting reclaim', 'terminal_outcome', x.terminal_outcome or '',
    'attempt_state', 'attempt_interrupted', 'public_state', 'active',
    'lease_expired_at', now, 'last_mutation_at', now)
  add_history(history_key, 'expired', 'lease_id', x.current_lease_id or '', 'lease_epoch', x.current_lease_epoch or '',
    'attempt_index', x.current_attempt_index or '', 'attempt_id', x.current_attempt_id or '',
    'worker_id', x.current_worker_id or '', 'worker_instance_id', x.current_worker_instance_id or '', 'ts', now)
  if is_set(x.current_attempt_index) then
    local execution_id = x.execution_id or string.match(core_key, '^ff:exec:{[^}]*}:(.*):core$')
    close_stream(stream_meta_key(core_key, execution_id, x.current_attempt_index), 'lease_expired', now, true)
  end
end

-- Reads what the fence below needs, with more fields on request.
local function read_holder(core_key, ...)
  return read(core_key, 'execution_id', 'lifecycle_phase', 'ownership_state', 'eligibility_state', 'terminal_outcome',
    'current_lease_id', 'current_lease_epoch', 'current_attempt_id', 'current_attempt_index', 'current_worker_id',
    'current_worker_instance_id', 'lease_expires_at', ...)
end

-- The fence of every write by a worker: nil and the lease id, epoch and attempt id
-- in force, or the reply that refuses. Without a fence only an operator may act
-- (allow_override). A lapsed lease is recorded before it is refused.
local function check_fence(core_key, history_key, x, lease_id, epoch, attempt_id, allow_override, now)
  local given = (is_set(lease_id) and 1 or 0) + (is_set(epoch) and 1 or 0) + (is_set(attempt_id) and 1 or 0)
  if given > 0 and given < 3 then
    return err('partial_fence_triple')
  end
  if given == 0 then
    if not allow_override then
      return err('fence_required')
    end
    lease_id, epoch, attempt_id = x.current_lease_id or '', x.current_lease_epoch or '', x.current_attempt_id or ''
  end
  if x.lifecycle_phase ~= 'active' then
    return not_active(x)
  end
  if x.ownership_state == 'lease_revoked' then
    return err('lease_revoked')
  end
  if tonumber(x.lease_expires_at or '0') <= now then
    mark_expired(core_key, history_key, x, now)
    return err('lease_expired')
  end
  if x.current_lease_id ~= lease_id or x.current_lease_epoch ~= epoch or x.current_attempt_id ~= attempt_id then
    return err('stale_lease')
  end
  return nil, lease_id, epoch, attempt_id
end

-- Capability lists. An error is the detail of invalid_capabilities.
local function parse_capabilities(csv, kind)
  local set, count = {}, 0
  if not is_set(csv) then
    return set
  end
  if #csv > 4096 then
    return nil, kind .. ':too_many_bytes'
  end
  for token in string.gmatch(csv, '[^,]+') do
    count = count + 1
    if count > 256 then
      return nil, kind .. ':too_many_tokens'
    end
    set[token] = true
  end
  return set
end

-- Wakes a worker that waits for work in the lane of a partition, if one does.
-- Workers that wait leave a mark, so that nothing is published while all are busy.
local function wake_lane(tag, lane)
  if redis.call('DEL', 'ffx:idx:' .. tag .. ':lane:' .. lane .. ':waiting') == 1 then
    redis.call('PUBLISH', 'ffx:wake', tag .. lane)
  end
end

-- Refuses an argument that passes its first check but cannot be used, before
-- anything is written. It is an error of the server, as a failed command would be.
local function refuse(name, raw)
  return redis.error_reply('ERR invalid_input: ' .. name .. ' cannot be used: ' .. tostring(raw))
end

-- A number without a fraction that fits a command.
local function is_whole(n)
  return n == math.floor(n) and n > -9007199254740992 and n < 9007199254740992
end

-- A number kept in a hash; 0 when there is none.
local function number_of(v)
  return tonumber(v or '') or 0
end

local function clamp_priority(n)
  return math.max(0, math.min(9000, n))
end

local function append(list, ...)
  for _, v in ipairs({...}) do
    list[#list + 1] = v
  end
end

-- Writes a flat list of fields and values, however long it is.
local function hset_all(key, list)
  for i = 1, #list, 1000 do
    redis.call('HSET', key, unpack(list, i, math.min(i + 999, #list)))
  end
end

-- Fields of a core. Each of these ends the arguments of one HSET, and they nest:
-- HSET core field value … without_lease(ended(…)).
local function state(phase, ownership, eligibility, reason, detail, outcome, attempt, public)
  return 'lifecycle_phase', phase, 'ownership_state', ownership, 'eligibility_state', eligibility,
    'blocking_reason', reason, 'blocking_detail', detail, 'terminal_outcome', outcome,
    'attempt_state', attempt, 'public_state', public
end

local function ended(now, outcome, attempt, public)
  return 'completed_at', now, 'last_transition_at', now, 'last_mutation_at', now,
    state('terminal', 'unowned', 'not_applicable', 'none', '', outcome, attempt, public)
end

local function queued(now, eligibility, reason, detail, attempt, public)
  return 'last_transition_at', now, 'last_mutation_at', now,
    state('runnable', 'unowned', eligibility, reason, detail, 'none', attempt, public)
end

local function without_lease(...)
  return 'current_lease_id', '', 'current_worker_id', '', 'current_worker_instance_id', '',
    'lease_expires_at', '', 'lease_last_renewed_at', '', 'lease_renewal_deadline', '', ...
end

local function without_lease_marks(...)
  return 'lease_expired_at', '', 'lease_revoked_at', '', 'lease_revoke_reason', '', ...
end

-- Hands an execution to a worker. The lease l has the fields execution_id, lease_id,
-- epoch, attempt_id, index, worker_id, instance, lane, now, expires and renewal;
-- more fields of the core may follow.
local function give_lease(core_key, lease_key, l, ...)
  redis.call('DEL', lease_key)
  redis.call('HSET', lease_key, 'lease_id', l.lease_id, 'lease_epoch', l.epoch,
    'execution_id', l.execution_id, 'attempt_id', l.attempt_id,
    'worker_id', l.worker_id, 'worker_instance_id', l.instance, 'acquired_at', l.now,
    'expires_at', l.expires, 'last_renewed_at', l.now, 'renewal_deadline', l.renewal)
  redis.call('HSET', core_key, 'current_lease_id', l.lease_id, 'current_lease_epoch', l.epoch,
    'current_worker_id', l.worker_id, 'current_worker_instance_id', l.instance, 'current_lane', l.lane,
    'lease_acquired_at', l.now, 'lease_expires_at', l.expires,
    'lease_last_renewed_at', l.now, 'lease_renewal_deadline', l.renewal,
    'lease_expired_at', '', 'lease_revoked_at', '', 'lease_revoke_reason', '',
    'last_transition_at', l.now, 'last_mutation_at', l.now,
    'lifecycle_phase', 'active', 'ownership_state', 'leased', 'eligibility_state', 'not_applicable',
    'blocking_reason', 'none', 'blocking_detail', '', 'terminal_outcome', 'none',
    'attempt_state', 'running_attempt', 'public_state', 'active', ...)
end

local function index_lease(expiry_key, leases_key, active_key, l)
  redis.call('ZADD', expiry_key, l.expires, l.execution_id)
  redis.call('SADD', leases_key, l.execution_id)
  redis.call('ZADD', active_key, l.expires, l.execution_id)
end

-- Records that a new attempt has started under the lease l, with its origin.
local function add_attempt(core_key, attempts_key, l, kind, ...)
  local key = attempt_key(core_key, l.execution_id, l.index)
  redis.call('HSET', key, 'attempt_id', l.attempt_id, 'execution_id', l.execution_id,
    'attempt_index', l.index, 'attempt_type', kind, 'attempt_state', 'started',
    'created_at', l.now, 'started_at', l.now, 'lease_id', l.lease_id, 'lease_epoch', l.epoch,
    'worker_id', l.worker_id, 'worker_instance_id', l.instance, ...)
  redis.call('ZADD', attempts_key, l.now, l.index)
  redis.call('HSET', key .. ':usage', 'last_usage_report_seq', '0')
  return kind
end

-- The same attempt goes on under the new lease l.
local function resume_attempt(key, l)
  redis.call('HSET', key, 'attempt_state', 'started', 'resumed_at', l.now,
    'lease_id', l.lease_id, 'lease_epoch', l.epoch, 'worker_id', l.worker_id,
    'worker_instance_id', l.instance, 'suspended_at', '', 'suspension_id', '')
end

-- Moves an execution from another index of its lane to the one that is claimed from;
-- x has the created_at, priority and lane_id of its core.
local function line_up(from_key, eligible_key, id, x)
  redis.call('ZREM', from_key, id)
  redis.call('ZADD', eligible_key, priority_score(number_of(x.created_at), number_of(x.priority)), id)
  wake_lane(tag_of(eligible_key), x.lane_id or '')
end

-- Tells whether a name has the form of a tag: a lower-case name, a dot, then no dot.
local function is_tag(name)
  return string.find(name, '^[a-z][a-z0-9_]*%.[^.]') ~= nil
end

-- What signals have in common with suspensions, whose file fills it.
local waitpoints = {}
