-- Suspensions: what the compatible functions do with several calls in one, with the
-- rules of package lifecycle. The records are those of the compatible functions.

-- Closes the suspension of an execution, if it is open, with its waitpoints that are.
-- More fields of its record may follow.
local function close_suspension(tag, base, now, reason, satisfied_at, ...)
  local key = base .. ':suspension:current'
  local s = read(key, 'suspension_id', 'closed_at', 'waitpoint_id', 'additional_waitpoints_json')
  if not s or not is_set(s.suspension_id) or is_set(s.closed_at) then
    return
  end
  for _, id in ipairs(waitpoints.ids(s)) do
    local waitpoint = 'ff:wp:' .. tag .. ':' .. id
    local open = redis.call('HGET', waitpoint, 'state')
    if open == 'active' or open == 'pending' then
      redis.call('HSET', waitpoint, 'state', 'closed', 'closed_at', now, 'close_reason', reason, 'satisfied_at', satisfied_at)
    end
    if redis.call('EXISTS', waitpoint .. ':condition') == 1 then
      redis.call('HSET', waitpoint .. ':condition', 'closed', '1', 'closed_at', now, 'closed_reason', reason)
    end
  end
  waitpoints.close_record(key, now, reason, 'satisfied_at', satisfied_at, ...)
end

-- Closes the suspension of an execution that ends in another way than through it.
local function abandon_suspension(tag, base, id, now, reason)
  redis.call('ZREM', 'ff:idx:' .. tag .. ':suspension_timeout', id)
  redis.call('HSET', base .. ':core', 'current_suspension_id', '', 'current_waitpoint_id', '')
  close_suspension(tag, base, now, reason, '')
end

-- Makes a suspended execution claimable, at once or after a delay. Answers its public
-- state.
local function wake_suspended(tag, base, id, x, now, delay, cause, by)
  redis.call('ZREM', 'ff:idx:' .. tag .. ':suspension_timeout', id)
  redis.call('ZREM', lane_key(tag, x.lane_id, 'suspended'), id)
  local public = 'waiting'
  if delay > 0 then
    public = 'delayed'
    local due = string.format('%.0f', now + delay)
    set_state(base .. ':core', now, 'runnable', 'unowned', 'not_eligible_until_time', 'waiting_for_resume_delay',
      string.format('resume delay %.0fms', delay) .. cause, 'none', 'attempt_interrupted', public, 'current_suspension_id', '',
      'current_waitpoint_id', '', 'delay_until', due)
    redis.call('ZADD', lane_key(tag, x.lane_id, 'delayed'), due, id)
    note_lane(tag, x.lane_id) -- a peer may have created it
    tell_due('delayed_promoter', due)
  else
    set_state(base .. ':core', now, 'runnable', 'unowned', 'eligible_now', 'waiting_for_worker', '', 'none', 'attempt_interrupted', public,
      'current_suspension_id', '', 'current_waitpoint_id', '', 'delay_until', '')
    redis.call('ZADD', lane_key(tag, x.lane_id, 'eligible'), score_of(x), id)
    wake_lane(tag, x.lane_id)
  end
  emit(tag, id, now, 'resumed', nil, nil, x.current_attempt_id, x.current_attempt_index, nil, nil, by, nil, x.flow_id)
  return public
end

-- The signals that have met the condition of a suspension, in their order: those that
-- were noted, then those that a peer has fed.
local function satisfiers(base)
  local key = base .. ':suspension:current'
  local list, noted, others = decode(redis.call('HGET', key, 'all_satisfier_signals') or ''), {}, {}
  list = type(list) == 'table' and list or {}
  for _, signal in ipairs(list) do
    noted[signal] = true
  end
  for _, signal in ipairs(redis.call('SMEMBERS', key .. ':satisfied_set:signals')) do
    if not noted[signal] then
      others[#others + 1] = {signal, tonumber(redis.call('ZSCORE', base .. ':signals', signal) or '0')}
    end
  end
  table.sort(others, function(a, b) return a[2] < b[2] or a[2] == b[2] and a[1] < b[1] end)
  for _, other in ipairs(others) do
    list[#list + 1] = other[1]
  end
  return list
end

-- The signals that a plain condition has taken, as a peer leaves them.
local function taken_signals(tag, base)
  local s, list = read(base .. ':suspension:current', 'waitpoint_id', 'additional_waitpoints_json'), {}
  for _, id in ipairs(s and waitpoints.ids(s) or {}) do
    local c = waitpoints.read_condition('ff:wp:' .. tag .. ':' .. id .. ':condition')
    for _, m in ipairs(c and c.matchers or {}) do
      if is_set(m.signal_id) then
        list[#list + 1] = m.signal_id
      end
    end
  end
  return list
end

-- The signals that have met the condition of the latest suspension, whoever fed them.
local function met_by(tag, base)
  local list = satisfiers(base)
  return #list > 0 and list or taken_signals(tag, base)
end

-- What the timeout of a suspension does: the reason, and the outcome unless the
-- attempt goes on.
local TIMEOUTS = {
  auto_resume = {'timed_out_auto_resume'}, auto_resume_with_timeout_signal = {'timed_out_auto_resume'},
  cancel = {'timed_out_cancel', 'cancelled'}, expire = {'timed_out_expire', 'expired'}, fail = {'timed_out_fail', 'failed'},
}

-- Leaves a suspension to an operator.
local function escalate(tag, base, id, x, s, now)
  redis.call('ZREM', 'ff:idx:' .. tag .. ':suspension_timeout', id)
  redis.call('HSET', base .. ':core', 'blocking_reason', 'paused_by_operator',
    'blocking_detail', 'suspension escalated: timeout at ' .. s.timeout_at, 'last_mutation_at', now)
  redis.call('HSET', base .. ':suspension:current', 'reason_code', 'waiting_for_operator_review', 'timeout_at', '', 'timeout_behavior', '')
  emit(tag, id, now, 'escalated', nil, nil, x.current_attempt_id, x.current_attempt_index, nil, nil, nil, nil, x.flow_id)
end

-- Does what a suspension does when its time is over.
local function time_out_suspension(tag, base, id, x, now)
  local s = read(base .. ':suspension:current', 'closed_at', 'timeout_at', 'timeout_behavior')
  if not s or is_set(s.closed_at) or not is_set(s.timeout_at) then
    redis.call('ZREM', 'ff:idx:' .. tag .. ':suspension_timeout', id) -- nothing says when any more
    return
  elseif number_or(s.timeout_at, 0) > now then
    redis.call('ZADD', 'ff:idx:' .. tag .. ':suspension_timeout', s.timeout_at, id)
    return
  end
  local behavior = s.timeout_behavior or 'fail'
  if behavior == 'escalate' then
    return escalate(tag, base, id, x, s, now)
  end
  local reason, outcome = unpack(TIMEOUTS[behavior] or TIMEOUTS.fail)
  close_suspension(tag, base, now, reason, '')
  if not outcome then
    wake_suspended(tag, base, id, x, now, 0, '', 'timeout')
    return
  end
  local failure = 'suspension_timeout:' .. behavior
  if x.current_attempt_index then
    end_open_attempt(tag, id, x, outcome == 'cancelled' and 'ended_cancelled' or 'ended_failure', now, failure, '')
    redis.call('HSET', 'ff:attempt:' .. tag .. ':' .. id .. ':' .. x.current_attempt_index, 'suspended_at', '', 'suspension_id', '')
  end
  abandon_suspension(tag, base, id, now, reason)
  finish(tag, base, id, x, now, outcome, failure, 'failure_reason', failure)
  if x.current_attempt_index then
    close_stream(stream_meta_key(base .. ':core', id, x.current_attempt_index), 'suspension_timeout', now)
  end
end

do
-- The keys that the shared parts write to.
local function keys_of(tag, base, x)
  return {suspension = base .. ':suspension:current', waitpoints = base .. ':waitpoints', pending = 'ff:idx:' .. tag .. ':pending_waitpoint_expiry',
    suspended = lane_key(tag, x.lane_id, 'suspended'), timeouts = 'ff:idx:' .. tag .. ':suspension_timeout'}
end

local function secrets_key(tag)
  return 'ff:sec:' .. tag .. ':waitpoint_hmac'
end

-- Answers a suspend call: whether the condition is met, the suspension, its timeout,
-- then id, key and token of each waitpoint.
local function answer(satisfied, id, timeout_at, list)
  local reply = ok(satisfied and '1' or '0', id, timeout_at or '')
  for _, w in ipairs(list) do
    append(reply, w.id, w.key, w.token)
  end
  return reply
end

-- The answer to the first call with the same idempotency key, or nil. A peer may have
-- been called.
local function earlier_outcome(key)
  local stored, parts, list = redis.call('HMGET', key, 'outcome', 'timeout_at'), {}, {}
  for part in string.gmatch((stored[1] or '') .. '\t', '([^\t]*)\t') do
    parts[#parts + 1] = part
  end
  if #parts < 5 then
    return nil
  end
  list[1] = {id = parts[3], key = parts[4], token = parts[5]}
  for i = 7, #parts - 2, 3 do
    list[#list + 1] = {id = parts[i], key = parts[i + 1], token = parts[i + 2]}
  end
  return answer(parts[1] == 'ALREADY_SATISFIED', parts[2], stored[2], list)
end

-- Remembers the answer under the idempotency key for a minute longer than the timeout,
-- at most a week. A key lives through the millisecond in which it expires.
local function remember(tag, key, id, satisfied, s, list)
  local parts = {satisfied and 'ALREADY_SATISFIED' or 'OK', s.id, list[1].id, list[1].key, list[1].token, tostring(#list - 1)}
  for i = 2, #list do
    append(parts, list[i].id, list[i].key, list[i].token)
  end
  local window = 604800000
  if s.timeout_at ~= '' then
    window = math.min(math.max(tonumber(s.timeout_at) - s.now, 0) + 60000, window)
  end
  redis.call('HSET', key, 'outcome', table.concat(parts, '\t'), 'timeout_at', s.timeout_at)
  redis.call('PEXPIRE', key, window - 1)
  redis.call('SADD', 'ffx:exec:' .. tag .. ':' .. id .. ':dedup', key) -- for the retention
end

-- The answer to the holder who has made this suspension before, or nil.
local function repeated(tag, x, last, a)
  if not last or last.suspension_id ~= a[5] or not own_earlier(x, a[3], a[4]) then
    return nil
  end
  local list = {}
  for _, id in ipairs(waitpoints.ids(last)) do
    local w = redis.call('HMGET', 'ff:wp:' .. tag .. ':' .. id, 'waitpoint_key', 'waitpoint_token')
    if w[1] then
      list[#list + 1] = {id = id, key = w[1], token = w[2] or ''}
    end
  end
  return answer(x.lifecycle_phase == 'active', last.suspension_id, last.timeout_at, list)
end

-- Fills in a waitpoint that was created ahead. Returns nil, or the reply that refuses
-- it. The condition has the keys from the argument at on.
local function take_up(w, s, a, at)
  local r = read(w.hash, 'waitpoint_key', 'waitpoint_token', 'state', 'execution_id', 'attempt_index', 'expires_at')
  if not r then
    return err('waitpoint_not_found')
  elseif r.state ~= 'pending' then
    return err('waitpoint_not_pending', 'waitpoint ' .. w.id .. ' is ' .. (r.state or ''))
  elseif r.execution_id ~= s.execution_id or r.attempt_index ~= s.attempt_index then
    return err('invalid_waitpoint_for_execution', 'waitpoint ' .. w.id .. ' was created by another attempt')
  elseif is_set(r.expires_at) and number_or(r.expires_at, 0) <= s.now then
    return err('pending_waitpoint_expired', 'waitpoint ' .. w.id .. ' expired at ' .. r.expires_at)
  elseif not is_set(r.waitpoint_token) then
    return err('waitpoint_not_token_bound')
  end
  for i = at, #a do
    if a[i] ~= r.waitpoint_key then
      return err('invalid_waitpoint_key', 'the condition waits at another key than that of waitpoint ' .. w.id)
    end
  end
  w.key, w.token = r.waitpoint_key, r.waitpoint_token
  -- The caller did not know the key: a NUL stands for it.
  s.condition = string.gsub(s.condition, '"\\u0000"', function() return cjson.encode(w.key) end)
end

-- Makes the waitpoints of a suspension in memory; returns nil, or the reply that
-- refuses them.
local function bind(tag, list, s)
  for _, w in ipairs(list) do
    local known = redis.call('HGET', w.hash, 'state')
    if known or redis.call('EXISTS', w.hash) == 1 then
      return err('waitpoint_already_exists', 'waitpoint ' .. w.id .. ' is ' .. (known or 'there'))
    end
  end
  return waitpoints.sign(secrets_key(tag), list, s.now)
end

-- Feeds the signals that came ahead. Returns whether they satisfy the condition, and
-- those that met it.
local function feed_buffered(c, k, w)
  local met, fed = false, {}
  for _, entry in ipairs(redis.call('XRANGE', w.hash .. ':signals', '-', '+')) do
    local f = {}
    for i = 1, #entry[2], 2 do
      f[entry[2][i]] = entry[2][i + 1]
    end
    local effect = waitpoints.feed(c, k.suspension, {id = f.signal_id, name = f.signal_name, source_type = f.source_type,
      source_identity = f.source_identity, waitpoint_id = w.id, waitpoint_key = w.key})
    met = met or effect == 'resume_condition_satisfied'
    local wanted = effect == 'resume_condition_satisfied' or effect == 'appended_to_waitpoint'
    for _, m in ipairs(c.matchers or {}) do
      wanted = wanted or m.name == '' or m.name == f.signal_name
    end
    if wanted then
      fed[#fed + 1] = f.signal_id
    end
  end
  return met, fed
end

-- Takes the lease from an execution that suspends itself.
local function give_up_lease(tag, base, x, s, waitpoint)
  emit_lease(tag, s.execution_id, x, s.now, 'released', 'suspend')
  leave_lease(tag, s.execution_id, x)
  set_state(base .. ':core', s.now, 'suspended', 'unowned', 'not_applicable', waitpoints.blocking_reasons[s.reason] or 'waiting_for_signal',
    'suspended: waitpoint ' .. waitpoint .. ' awaiting ' .. s.reason, 'none', 'attempt_interrupted', 'suspended',
    'current_lease_id', '', 'current_worker_id', '', 'current_worker_instance_id', '', 'lease_expires_at', '',
    'lease_last_renewed_at', '', 'lease_renewal_deadline', '', 'current_suspension_id', s.id, 'current_waitpoint_id', waitpoint)
  redis.call('HSET', 'ff:attempt:' .. tag .. ':' .. s.execution_id .. ':' .. s.attempt_index, 'attempt_state', 'suspended',
    'suspended_at', s.now, 'suspension_id', s.id)
end

-- Where the waitpoints begin among the arguments of ffx_suspend.
local WAITPOINTS = 17

local function read_suspend(tag, x, a, now)
  local timeout_at = a[9] ~= '' and string.format('%.0f', now + a[9]) or a[8]
  local s, list = {execution_id = a[1], attempt_index = x.current_attempt_index or '', id = a[5], reason = a[6], requested_by = a[7],
    timeout_at = timeout_at, condition = a[10], policy = a[11], pointer = a[12], timeout_behavior = a[13], now = now}, {}
  local count = assert(tonumber(a[16]))
  for i = 1, count do
    local id = a[WAITPOINTS + 2 * i - 2]
    local hash = 'ff:wp:' .. tag .. ':' .. id
    list[i] = {id = id, key = a[WAITPOINTS + 2 * i - 1], hash = hash, condition = hash .. ':condition'}
  end
  return s, list, WAITPOINTS + 2 * count
end

-- KEYS: the core. ARGV: id, lease id, epoch, attempt id, suspension id, reason,
-- requested by, timeout, or the time until it, condition, policy, continuation,
-- behaviour at the timeout, idempotency key, 1 when the only waitpoint was created
-- ahead, number of waitpoints, id and key of each, then the keys that the condition
-- refers to. The answer is that of answer above.
redis.register_function('ffx_suspend', function(keys, a)
  local now, tag, id = now_ms(), tag_of(keys[1]), a[1]
  local base, x = base_of(tag, id), load_holder(keys[1])
  if not x then
    return err('execution_not_found')
  end
  local dedup = a[14] ~= '' and 'ff:dedup:suspend:' .. tag .. ':' .. id .. ':' .. a[14]
  local last = read(base .. ':suspension:current', 'suspension_id', 'closed_at', 'waitpoint_id', 'additional_waitpoints_json', 'timeout_at')
  local earlier = dedup and earlier_outcome(dedup) or repeated(tag, x, last, a)
  if earlier then
    return earlier
  end
  local refused = check_holder(tag, base, id, x, a[2], a[3], a[4], '', now)
  if refused then
    return refused
  elseif last and not is_set(last.closed_at) then
    return err('already_suspended', 'suspension ' .. (last.suspension_id or '') .. ' is open')
  end
  local s, list, at = read_suspend(tag, x, a, now)
  local ahead, k, met, fed = a[15] == '1', keys_of(tag, base, x), false, {}
  if ahead then
    refused = take_up(list[1], s, a, at)
  else
    refused = bind(tag, list, s)
  end
  if refused then
    return refused
  end
  local c = waitpoints.parse_condition(s.condition)
  if not c then
    return err('invalid_input', 'the condition cannot be read')
  end

  redis.call('DEL', k.suspension, waitpoints.composite_keys(k.suspension))
  if ahead then
    met, fed = feed_buffered(c, k, list[1])
    waitpoints.activate(k, list[1], s, c, met)
  else
    for _, w in ipairs(list) do
      waitpoints.create(w, s, c)
    end
  end
  waitpoints.write_suspension(k, s, c, list)
  if #fed > 0 then
    redis.call('HSET', k.suspension, 'all_satisfier_signals', cjson.encode(fed))
  end
  if not c.composite and a[at] and a[at] ~= list[1].key then
    redis.call('HSET', k.suspension, 'condition_key', a[at])
  end
  if met then
    close_suspension(tag, base, now, 'resumed', now)
  else
    give_up_lease(tag, base, x, s, list[1].id)
    waitpoints.index_suspension(k, s)
    if s.timeout_at ~= '' then
      tell_due('suspension_timeout', s.timeout_at)
    end
  end
  if dedup then
    remember(tag, dedup, id, met, s, list)
  end
  return answer(met, s.id, s.timeout_at, list)
end)

-- KEYS: the core. ARGV: id, delay. Answers the public state.
redis.register_function('ffx_resume', function(keys, a)
  local now, tag, id = now_ms(), tag_of(keys[1]), a[1]
  local base, x = base_of(tag, id), load_holder(keys[1])
  if not x then
    return err('execution_not_found')
  end
  local s = read(base .. ':suspension:current', 'suspension_id', 'closed_at')
  if x.lifecycle_phase ~= 'suspended' or not s or not is_set(s.suspension_id) or is_set(s.closed_at) then
    return err('execution_not_suspended', 'the execution is ' .. (x.public_state or ''))
  end
  close_suspension(tag, base, now, 'resumed', now)
  return ok(wake_suspended(tag, base, id, x, now, tonumber(a[2]), '', 'operator'))
end)

-- KEYS: the core. ARGV: id, lease id, epoch, attempt id, waitpoint id, its key, how
-- long it is kept. Answers its key, its token and until when it is kept.
redis.register_function('ffx_create_waitpoint', function(keys, a)
  local now, tag, id = now_ms(), tag_of(keys[1]), a[1]
  local base, x = base_of(tag, id), load_holder(keys[1])
  if not x then
    return err('execution_not_found')
  end
  local refused = check_holder(tag, base, id, x, a[2], a[3], a[4], '', now)
  if refused then
    return refused
  end
  local w = {id = a[5], key = a[6], hash = 'ff:wp:' .. tag .. ':' .. a[5]}
  local known = read(w.hash, 'state', 'execution_id', 'attempt_index', 'waitpoint_key', 'waitpoint_token', 'expires_at')
  if known and known.state == 'pending' and known.execution_id == id and known.attempt_index == x.current_attempt_index
    and known.waitpoint_key == w.key then
    return ok(w.key, known.waitpoint_token, known.expires_at)
  elseif known then
    return err('waitpoint_already_exists', 'waitpoint ' .. w.id .. ' is ' .. (known.state or 'there'))
  end
  refused = waitpoints.sign(secrets_key(tag), {w}, now)
  if refused then
    return refused
  end
  local expires = string.format('%.0f', now + a[7])
  redis.call('HSET', w.hash, 'waitpoint_id', w.id, 'execution_id', id, 'attempt_index', x.current_attempt_index, 'suspension_id', '',
    'waitpoint_key', w.key, 'waitpoint_token', w.token, 'state', 'pending', 'created_at', now, 'activated_at', '', 'satisfied_at', '',
    'closed_at', '', 'expires_at', expires, 'close_reason', '', 'signal_count', '0', 'matched_signal_count', '0', 'last_signal_at', '')
  redis.call('ZADD', 'ff:idx:' .. tag .. ':pending_waitpoint_expiry', expires, w.id)
  redis.call('SADD', base .. ':waitpoints', w.id) -- it is listed, and deleted with the execution
  return ok(w.key, w.token, expires)
end)

-- KEYS: the core. ARGV: id, waitpoint id, reason. Answers whether it was closed before.
redis.register_function('ffx_close_waitpoint', function(keys, a)
  local now, tag, id = now_ms(), tag_of(keys[1]), a[1]
  local key = 'ff:wp:' .. tag .. ':' .. a[2]
  if redis.call('EXISTS', keys[1]) == 0 then
    return err('execution_not_found')
  end
  local w = read(key, 'state', 'execution_id', 'suspension_id')
  if not w or w.execution_id ~= id then
    return err('waitpoint_not_found', 'the execution has no waitpoint ' .. a[2])
  elseif w.state == 'active' then
    return err('waitpoint_not_pending', 'waitpoint ' .. a[2] .. ' belongs to suspension ' .. (w.suspension_id or ''))
  end
  redis.call('ZREM', 'ff:idx:' .. tag .. ':pending_waitpoint_expiry', a[2])
  if w.state ~= 'pending' then
    return ok('1')
  end
  redis.call('HSET', key, 'state', 'closed', 'closed_at', now, 'close_reason', a[3])
  return ok('0')
end)

-- KEYS: the core. ARGV: id. Answers the record of the latest suspension, and the
-- signals that met its condition.
redis.register_function{function_name = 'ffx_suspension', flags = {'no-writes'}, callback = function(keys, a)
  local tag = tag_of(keys[1])
  local base = base_of(tag, a[1])
  if redis.call('EXISTS', keys[1]) == 0 then
    return err('execution_not_found')
  end
  return ok(redis.call('HGETALL', base .. ':suspension:current'), met_by(tag, base))
end}

-- KEYS: the core. ARGV: id, the waitpoint to go on after, 1 for closed ones as well,
-- limit. Answers whether there are more, then per waitpoint its record and the names
-- of its signals.
redis.register_function{function_name = 'ffx_waitpoints', flags = {'no-writes'}, callback = function(keys, a)
  local tag, limit = tag_of(keys[1]), tonumber(a[4])
  if redis.call('EXISTS', keys[1]) == 0 then
    return err('execution_not_found')
  end
  local ids, reply = redis.call('SMEMBERS', base_of(tag, a[1]) .. ':waitpoints'), ok('0')
  table.sort(ids)
  for _, id in ipairs(ids) do
    local key = 'ff:wp:' .. tag .. ':' .. id
    local state = id > a[2] and redis.call('HGET', key, 'state')
    if state and (a[3] == '1' or state == 'pending' or state == 'active') then
      if #reply == limit + 3 then
        reply[3] = '1'
        return reply
      end
      local c, names = waitpoints.read_condition(key .. ':condition'), {}
      for _, m in ipairs(c and c.matchers or {}) do
        if m.name ~= '' then
          names[#names + 1] = m.name
        end
      end
      reply[#reply + 1] = {redis.call('HGETALL', key), names}
    end
  end
  return reply
end}

-- KEYS: the secrets of a partition. ARGV: key id, secret, grace. Answers as the
-- compatible function.
redis.register_function('ffx_rotate_waitpoint_secret', function(keys, a)
  local now, store, kid = now_ms(), read_all(keys[1]), a[1]
  local known = store['secret:' .. kid]
  if known and string.lower(known) ~= string.lower(a[2])
    and (kid == store.current_kid or waitpoints.is_valid(store['expires_at:' .. kid], now)) then
    return err('rotation_conflict', kid)
  elseif kid == store.current_kid then
    redis.call('HSETNX', keys[1], 'secret:' .. kid, a[2])
    return ok('noop', kid)
  end
  store['expires_at:' .. kid] = nil -- it is not over, it begins again
  return ok('rotated', store.current_kid or '', kid, tostring(waitpoints.install_secret(keys[1], store, kid, a[2], now, tonumber(a[3]))))
end)
end
