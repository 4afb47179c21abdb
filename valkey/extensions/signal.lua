do
local function keys_of(tag, base, s)
  local waitpoint, signal = 'ff:wp:' .. tag .. ':' .. s.waitpoint_id, 'ff:signal:' .. tag .. ':' .. s.id
  return {core = base .. ':core', condition = waitpoint .. ':condition', signals = waitpoint .. ':signals', exec_signals = base .. ':signals',
    signal = signal, payload = signal .. ':payload', dedup = 'ff:sigdedup:' .. tag .. ':' .. s.waitpoint_id .. ':' .. s.idempotency_key,
    waitpoint = waitpoint, suspension = base .. ':suspension:current', secrets = 'ff:sec:' .. tag .. ':waitpoint_hmac'}
end

-- nil when the waitpoint takes signals, or the reply that refuses one that comes too
-- late.
local function not_signalable(x, w, s)
  if w.state == 'pending' and x.lifecycle_phase ~= 'terminal' then
    return nil
  elseif x.lifecycle_phase ~= 'suspended' then
    return err('target_not_signalable', 'the execution is ' .. (x.public_state or '') .. ' and the waitpoint ' .. (w.state or ''))
  elseif w.state ~= 'active' or w.suspension_id ~= x.current_suspension_id then
    return err('waitpoint_closed', 'waitpoint ' .. s.waitpoint_id .. ' is ' .. (w.state or ''))
  end
end

-- The reply to a signal that was accepted before, also when it has ended the wait: whoever
-- has lost the answer repeats just that one. nil to a new one.
local function repeated(k, s)
  local first = waitpoints.has_dedup(s) and redis.call('GET', k.dedup)
  local owner = redis.call('HGET', k.signal, 'target_execution_id')
  if first or owner == s.execution_id then
    return ok(first or s.id, '')
  elseif owner then
    return err('invalid_input', 'signal_id: it is that of a signal to another execution')
  end
end

-- The reply to a signal that is one too many.
local function one_too_many(k, base, x, s)
  local limit = number_or(policy_of(policy_text(base, x), 'max_signals_per_execution').max_signals_per_execution, 0)
  limit = limit > 0 and math.min(limit, s.max_signals) or s.max_signals
  local taken = redis.call('ZCARD', k.exec_signals)
  if taken >= limit then
    return err('signal_limit_exceeded', 'the execution has taken ' .. taken .. ' signals, the limit is ' .. limit)
  end
end

-- Signals of one millisecond are kept in their order by fractions of it.
local function score_signal(k, s)
  local n = redis.call('ZCOUNT', k.exec_signals, s.now, '(' .. string.format('%.0f', s.now + 1))
  if n > 0 then
    s.score = string.format('%.5f', s.now + math.min(n, 3999) / 4000)
  end
end

local function emit_signal(tag, x, s, effect)
  local source = ''
  if s.source_type ~= '' or s.source_identity ~= '' then
    source = s.source_type .. ':' .. s.source_identity
  end
  emit(tag, s.execution_id, s.now, 'signal_delivered', nil, nil, x.current_attempt_id, x.current_attempt_index, nil, nil, effect, nil, x.flow_id,
    '\0' .. s.id .. '\0' .. s.waitpoint_id .. '\0' .. source)
end

-- Keeps a signal for the suspension that its waitpoint was created for.
local function buffer(k, tag, x, w, s)
  local effect = 'buffered_for_pending_waitpoint'
  waitpoints.store_signal(k, s, effect)
  redis.call('HSET', k.waitpoint, 'signal_count', number_or(w.signal_count, 0) + 1, 'last_signal_at', s.now)
  emit_signal(tag, x, s, effect)
  return ok(s.id, effect)
end

-- How long the execution is held back when the signal resumes it.
local function delay_of(k, s)
  if s.resume_delay_ms > 0 then
    return s.resume_delay_ms
  end
  local policy = decode(redis.call('HGET', k.suspension, 'resume_policy_json') or '')
  return type(policy) == 'table' and tonumber(policy.resume_delay_ms) or 0
end

-- KEYS: the core. ARGV: those of ff_deliver_signal. Answers the id of the signal, and
-- its effect, which is empty for a repetition.
redis.register_function('ffx_deliver_signal', function(keys, args)
  local tag = tag_of(keys[1])
  local s, bad = waitpoints.read_signal(args)
  if not s then
    return bad
  end
  local base = base_of(tag, s.execution_id)
  local k = keys_of(tag, base, s)
  local x, w = waitpoints.authenticate(k, s, 'invalid_token', 'has_policy', 'current_attempt_id', 'current_attempt_index', 'flow_id', 'public_state')
  if not x then
    return w
  end
  local refused = repeated(k, s) or not_signalable(x, w, s) or one_too_many(k, base, x, s)
  if refused then
    return refused
  end
  score_signal(k, s)
  if w.state == 'pending' then
    return buffer(k, tag, x, w, s)
  end
  local c = waitpoints.read_condition(k.condition)
  if not c or c.closed then
    return err('waitpoint_closed', 'waitpoint ' .. s.waitpoint_id .. ' has no condition that is open')
  end

  local effect, taken = waitpoints.feed(c, k.suspension, s)
  local resumes, fields = effect == 'resume_condition_satisfied', {'last_signal_at', s.now}
  waitpoints.store_signal(k, s, effect)
  waitpoints.note_signal(k, s, w, c, effect, taken, resumes)
  if resumes or effect == 'appended_to_waitpoint' then
    local list = satisfiers(base)
    if c.composite and list[#list] == s.id then
      list[#list] = nil
    end
    list[#list + 1] = s.id
    append(fields, 'all_satisfier_signals', cjson.encode(list))
  end
  emit_signal(tag, x, s, effect)
  if resumes then
    local delay = delay_of(k, s)
    append(fields, 'closer_signal_id', s.id)
    close_suspension(tag, base, s.now, 'resumed', s.now, unpack(fields))
    wake_suspended(tag, base, s.execution_id, x, s.now, delay, ' after signal ' .. s.name, 'signal')
  else
    redis.call('HSET', k.suspension, unpack(fields))
  end
  redis.call('XADD', 'ff:part:' .. tag .. ':signal_delivery', 'MAXLEN', '~', '1000', '*', 'signal_id', s.id, 'execution_id', s.execution_id,
    'waitpoint_id', s.waitpoint_id, 'source_identity', s.source_identity, 'effect', effect, 'delivered_at_ms', s.now)
  return ok(s.id, effect)
end)

-- How many signals one call looks at.
local SCANNED = 2000

-- The signals that a listing asks for: nil for all, or a set.
local function wanted_signals(base, resumed)
  if resumed == '' then
    return nil
  end
  local wanted = {}
  if is_set(redis.call('HGET', base .. ':suspension:current', 'closed_at')) then
    for _, id in ipairs(met_by(tag_of(base), base)) do
      wanted[id] = true
    end
  end
  return wanted
end

-- KEYS: the core. ARGV: id, waitpoint or empty, 1 for those that met the condition of
-- the latest suspension, the score and id to go on after, limit, maximum of payload
-- bytes. Answers the score and id up to which was looked, empty at the end, and per
-- signal its record and payload.
redis.register_function{function_name = 'ffx_signals', flags = {'no-writes'}, callback = function(keys, a)
  local tag, limit, most = tag_of(keys[1]), tonumber(a[6]), tonumber(a[7])
  local base = base_of(tag, a[1])
  if redis.call('EXISTS', keys[1]) == 0 then
    return err('execution_not_found')
  end
  local wanted, from, offset, bytes, found = wanted_signals(base, a[3]), a[4] ~= '' and a[4] or '-inf', 0, 0, {}
  local score, last = a[4], a[5]
  while true do
    local page = redis.call('ZRANGEBYSCORE', base .. ':signals', from, '+inf', 'WITHSCORES', 'LIMIT', offset, 100)
    for i = 1, #page, 2 do
      local id, key = page[i], 'ff:signal:' .. tag .. ':' .. page[i]
      if page[i + 1] ~= a[4] or id > a[5] then
        local there = (not wanted or wanted[id]) and redis.call('HGET', key, 'target_waitpoint_id')
        if there and (a[2] == '' or there == a[2]) then
          if #found == limit or bytes >= most then
            return ok(score, last, found)
          end
          local payload = redis.call('GET', key .. ':payload') or ''
          bytes = bytes + #payload
          found[#found + 1] = {redis.call('HGETALL', key), payload}
        end
        score, last = page[i + 1], id
      end
    end
    offset = offset + 100
    if #page < 200 then
      return ok('', '', found)
    elseif offset >= SCANNED then
      return ok(score, last, found)
    end
  end
end}
end
