local function expire(tag, base, id, x, now, reason)
  if x.lifecycle_phase == 'suspended' then
    abandon_suspension(tag, base, id, now, 'expired:' .. reason)
  end
  end_open_attempt(tag, id, x, 'ended_failure', now, reason, 'timeout')
  finish(tag, base, id, x, now, 'expired', reason, 'failure_reason', reason, 'failure_category', 'timeout')
end

local function promote(tag, base, id, x, now)
  local lapses = redis.call('HGET', base .. ':claim_grant', 'grant_expires_at')
  if lapses and number_or(lapses, 0) <= now then
    drop_grant(tag, base, id)
    redis.call('HSET', base .. ':core', 'last_mutation_at', now)
    wake_lane(tag, x.lane_id)
  elseif not lapses then
    redis.call('ZREM', 'ffx:idx:' .. tag .. ':grants', id) -- a peer has used it up
  end
  if x.eligibility_state == 'not_eligible_until_time' and number_or(x.delay_until, 0) <= now then
    set_state(base .. ':core', now, 'runnable', 'unowned', 'eligible_now', 'waiting_for_worker', '', 'none', x.attempt_state, 'waiting',
      'delay_until', '')
    redis.call('ZREM', lane_key(tag, x.lane_id, 'delayed'), id)
    redis.call('ZADD', lane_key(tag, x.lane_id, 'eligible'), score_of(x), id)
    wake_lane(tag, x.lane_id)
  end
end

local function time_out_attempt(tag, base, id, x, now)
  local backoff = backoff_of(id, x, policy_text(base, x), 'timeout')
  if not backoff then
    return expire(tag, base, id, x, now, 'attempt_timeout')
  end
  end_open_attempt(tag, id, x, 'ended_failure', now, 'attempt_timeout', 'timeout')
  close_stream(stream_meta_key('ff:exec:' .. tag, id, x.current_attempt_index), 'attempt_failure', now, false, tag, id)
  plan_retry(tag, base, id, x, now, backoff, 'attempt_timeout', 'timeout')
end

-- The numbers of an execution's attempts: those of their list, and those that are
-- there when the list has not as many as the record says. Either may be damaged.
local function attempts_of(tag, base, id, x)
  local list = redis.pcall('ZRANGE', base .. ':attempts', 0, -1)
  local i = number_or(x.total_attempt_count, 0) - 1
  if #list > i then
    return list
  end
  while i >= 0 and redis.call('EXISTS', string.format('ff:attempt:%s:%s:%d', tag, id, i)) == 1 do
    list[#list + 1], i = string.format('%d', i), i - 1
  end
  return list
end

-- Deletes an execution with everything that belongs to it.
local function purge(tag, base, id, x)
  local doomed = {}
  local function add(key)
    doomed[#doomed + 1] = key
  end
  for _, name in ipairs({'payload', 'result', 'tags', 'lease:current', 'lease:history', 'claim_grant', 'attempts',
    'suspension:current', 'suspension:current:satisfied_set', 'suspension:current:satisfied_set:signals', 'suspension:current:member_map',
    'deps:meta', 'deps:unresolved', 'deps:all_edges', 'waitpoints', 'signals', 'policy'}) do
    add(base .. ':' .. name)
  end
  for _, i in ipairs(attempts_of(tag, base, id, x)) do
    local attempt, stream = 'ff:attempt:' .. tag .. ':' .. id .. ':' .. i, 'ff:stream:' .. tag .. ':' .. id .. ':' .. i
    add(attempt)
    add(attempt .. ':usage')
    add(attempt .. ':policy')
    add(attempt .. ':summary')
    add(stream)
    add(stream .. ':meta')
  end
  for _, edge in ipairs(redis.call('SMEMBERS', base .. ':deps:all_edges')) do
    add(base .. ':dep:' .. edge)
  end
  for _, wp in ipairs(redis.call('SMEMBERS', base .. ':waitpoints')) do
    local key = 'ff:wp:' .. tag .. ':' .. wp
    add(key)
    add(key .. ':signals')
    add(key .. ':condition')
    redis.call('ZREM', 'ff:idx:' .. tag .. ':pending_waitpoint_expiry', wp)
  end
  for _, signal in ipairs(redis.call('ZRANGE', base .. ':signals', 0, -1)) do
    add('ff:signal:' .. tag .. ':' .. signal)
    add('ff:signal:' .. tag .. ':' .. signal .. ':payload')
    local v = redis.call('HMGET', 'ff:signal:' .. tag .. ':' .. signal, 'target_waitpoint_id', 'idempotency_key')
    if v[1] and is_set(v[2]) then
      add('ff:sigdedup:' .. tag .. ':' .. v[1] .. ':' .. v[2])
    end
  end
  local own = 'ffx:exec:' .. tag .. ':' .. id
  for _, key in ipairs(redis.call('SMEMBERS', own .. ':dedup')) do
    add(key)
  end
  add(own .. ':dedup')
  add(own .. ':events')
  add(own .. ':tails')
  for i = 1, #doomed, 500 do
    redis.call('UNLINK', unpack(doomed, i, math.min(i + 499, #doomed)))
  end
  redis.call('DEL', base .. ':core')
  redis.call('ZREM', lane_key(tag, x.lane_id, 'terminal'), id)
  redis.call('SREM', 'ff:idx:' .. tag .. ':all_executions', id)
  redis.call('ZREM', 'ffx:idx:' .. tag .. ':created', id)
  redis.call('ZREM', 'ffx:idx:' .. tag .. ':retention', id)
  redis.call('ZREM', 'ffx:idx:' .. tag .. ':lane:' .. x.lane_id .. ':outcome:' .. (x.terminal_outcome or ''), id)
end

-- The next thing that time will do to an execution: its kind and instant.
local function next_due(tag, base, id, x, retention)
  local kind, at
  local function earlier(k, when)
    when = tonumber(when)
    if when and when == when and (not at or when < at) then -- a damaged one may be no number
      kind, at = k, when
    end
  end
  if x.lifecycle_phase == 'terminal' then
    local own = number_or(member(policy_of(policy_text(base, x), 'retention_ttl_ms'), 'stream_policy').retention_ttl_ms, 0)
    return 'retention_trimmer', number_or(x.completed_at, 0) + (own > 0 and own or retention)
  elseif x.ownership_state == 'leased' then
    earlier('lease_expiry', x.lease_expires_at)
    earlier('attempt_timeout', redis.call('ZSCORE', 'ff:idx:' .. tag .. ':attempt_timeout', id))
  elseif x.eligibility_state == 'not_eligible_until_time' then
    -- A peer that resumes with a delay does not note until when.
    earlier('delayed_promoter', x.blocking_reason ~= 'waiting_for_resume_delay' and x.delay_until
      or redis.call('ZSCORE', lane_key(tag, x.lane_id, 'delayed'), id))
  elseif x.lifecycle_phase == 'suspended' then
    earlier('suspension_timeout', redis.call('ZSCORE', 'ff:idx:' .. tag .. ':suspension_timeout', id))
  end
  earlier('delayed_promoter', redis.call('HGET', base .. ':claim_grant', 'grant_expires_at'))
  -- The index has what is in force: peers do not know our field of the record.
  earlier('execution_deadline', redis.call('ZSCORE', 'ff:idx:' .. tag .. ':execution_deadline', id))
  return kind, at
end

-- Makes known a loss that a peer has marked. Answers whether it was not known.
local function note_lost(tag, id, x)
  if redis.call('ZADD', lost_key(tag, x.lane_id), 'NX', score_of(x), id) == 0 then
    return false
  end
  wake_lane(tag, x.lane_id)
  return true
end

-- Closes a pending waitpoint that no suspension took up in time. Answers
-- whether it did.
local function expire_pending(s, key, id)
  local waitpoint = 'ff:wp:' .. s.tag .. ':' .. id
  local w = read(waitpoint, 'state', 'execution_id')
  redis.call('ZREM', key, id)
  if not w or w.state ~= 'pending' then
    return false
  end
  local base = base_of(s.tag, w.execution_id or '')
  if redis.call('EXISTS', base .. ':core') == 1 then
    redis.call('HSET', waitpoint, 'state', 'closed', 'closed_at', s.now, 'close_reason', 'never_committed')
    redis.call('SADD', base .. ':waitpoints', id) -- those of peers are not there
  else
    redis.call('UNLINK', waitpoint, waitpoint .. ':signals', waitpoint .. ':condition')
  end
  return true
end

-- Does what is due of one execution. Answers whether that was of this kind.
local function advance(s, key, id)
  local base = base_of(s.tag, id)
  local x = load(base .. ':core')
  if not x then
    redis.call('ZREM', key, id)
    return false
  end
  local kind, at = next_due(s.tag, base, id, x, s.retention)
  if kind ~= s.kind or at > s.now then
    if s.kind == 'lease_expiry' and is_lost(x) then
      return note_lost(s.tag, id, x)
    elseif s.stale(x, base, key) then
      redis.call('ZREM', key, id)
    elseif s.kind == 'retention_trimmer' then
      redis.call('ZADD', s.keeping, at, id) -- a peer has ended it
    end
    return false
  end
  s.act(s.tag, base, id, x, s.now)
  return true
end

-- The kinds: what is done, and whether an entry has no business in the index that it
-- was found in.
local function not_active_any_more(x)
  return x.lifecycle_phase ~= 'active'
end
local function not_leased(x)
  return x.ownership_state ~= 'leased'
end
local function not_suspended(x)
  return x.lifecycle_phase ~= 'suspended'
end
local function ended(x)
  return x.lifecycle_phase == 'terminal'
end
local function not_ended(x)
  return x.lifecycle_phase ~= 'terminal'
end
-- Peers use up grants without telling, and leave delayed entries of what they claim.
local function neither_delayed_nor_granted(x, base, key)
  if string.sub(key, 1, 4) == 'ffx:' then
    return not is_granted(base)
  end
  return home_of(x) ~= 'delayed'
end
local KINDS = {
  lease_expiry = {act = mark_lapsed, stale = not_active_any_more},
  delayed_promoter = {act = promote, stale = neither_delayed_nor_granted},
  attempt_timeout = {act = time_out_attempt, stale = not_leased},
  execution_deadline = {act = function(tag, base, id, x, now) expire(tag, base, id, x, now, 'execution_deadline') end, stale = ended},
  suspension_timeout = {act = time_out_suspension, stale = not_suspended},
  pending_wp_expiry = {advance = expire_pending},
  retention_trimmer = {act = purge, stale = not_ended},
}

-- How many entries one call looks at: others want the server too.
local LOOKED = 2000

-- The rank of what follows an entry, which may be gone. Entries of one score are in
-- the order of their names.
local function rank_behind(key, score, id)
  local low, high = redis.call('ZCOUNT', key, '-inf', '(' .. score), redis.call('ZCOUNT', key, '-inf', score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if redis.call('ZRANGE', key, middle, middle)[1] <= id then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

-- Whether an execution that ended is known to be kept longer than others are.
local function is_kept(s, key, id)
  if not s.keeping or key == s.keeping then
    return false
  end
  local over = redis.call('ZSCORE', s.keeping, id)
  return over and tonumber(over) > s.now
end

local function try_advance(s, key, id)
  local good, done = pcall(s.advance, s, key, id)
  if not good then
    s.errors = s.errors + 1
    s.failure = tostring(type(done) == 'table' and done.err or done)
  elseif done then
    s.processed = s.processed + 1
  end
end

-- Goes through an index in the order of time, from a rank to the last entry that is
-- due. Answers whether it came to that; s.place is the last entry that was looked at.
local function sweep_index(s, key, rank, last)
  while true do
    local page = redis.call('ZRANGE', key, rank, rank + math.min(49, s.limit - s.processed), 'WITHSCORES')
    for i = 1, #page, 2 do
      local id, score = page[i], page[i + 1]
      if tonumber(score) > last then
        return true
      elseif s.processed >= s.limit or s.looked >= LOOKED then
        return false
      end
      if not is_kept(s, key, id) then
        try_advance(s, key, id)
      end
      s.looked, s.place = s.looked + 1, {key, score, id}
      if redis.call('ZRANGE', key, rank, rank)[1] == id then
        rank = rank + 1 -- it stays
      end
    end
    if #page == 0 then
      return true
    end
  end
end

local function next_score(key, after)
  return tonumber(redis.call('ZRANGEBYSCORE', key, '(' .. after, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2])
end

-- The indexes of a kind on a partition: their keys, and what is added to a score to
-- have the instant.
local function sources(kind, tag, retention)
  if kind == 'delayed_promoter' or kind == 'retention_trimmer' then
    local delayed = kind == 'delayed_promoter'
    local list = {{'ffx:idx:' .. tag .. (delayed and ':grants' or ':retention'), 0}}
    for _, lane in ipairs(redis.call('SMEMBERS', 'ffx:idx:' .. tag .. ':lanes')) do
      list[#list + 1] = {lane_key(tag, lane, delayed and 'delayed' or 'terminal'), delayed and 0 or retention}
    end
    return list
  end
  return {{'ff:idx:' .. tag .. ':' .. (kind == 'pending_wp_expiry' and 'pending_waitpoint_expiry' or kind), 0}}
end

-- An instant without what a source adds to its scores. The lower end of a sweep may
-- be infinite.
local function score_at(instant, shift)
  return instant == '-inf' and instant or string.format('%.0f', instant - shift)
end

-- KEYS: any of the partition. ARGV: kind, default retention, the instant up to which
-- everything was looked at. Answers now, whether anything is due, and when the next
-- thing is.
redis.register_function{function_name = 'ffx_due', flags = {'no-writes'}, callback = function(keys, a)
  local now, due, first = now_ms(), 0, nil
  for _, source in ipairs(sources(a[1], tag_of(keys[1]), tonumber(a[2]))) do
    local key, shift = source[1], source[2]
    local last = score_at(now, shift)
    if redis.call('ZCOUNT', key, '(' .. score_at(a[3], shift), last) > 0 then
      due = 1
    end
    local at = next_score(key, last)
    if at and (not first or at + shift < first) then
      first = at + shift
    end
  end
  return {now, due, first and string.format('%.0f', first) or ''}
end}

-- The number of the source in which a sweep goes on; the first when it is gone.
local function first_source(list, key)
  for i, source in ipairs(list) do
    if source[1] == key then
      return i, true
    end
  end
  return 1, false
end

-- KEYS: any of the partition. ARGV: kind, default retention, the instant up to which
-- everything was looked at before, limit, then the entry that the call before came
-- to: its index, score and id, all empty at first. Answers now, how many were done,
-- how many failed, the entry that this call came to, and how the last failed. There
-- is no such entry when everything was looked at that is due.
redis.register_function('ffx_sweep', function(keys, a)
  local tag, kind = tag_of(keys[1]), KINDS[a[1]]
  local s = {tag = tag, now = now_ms(), kind = a[1], retention = tonumber(a[2]), limit = tonumber(a[4]), processed = 0, errors = 0,
    looked = 0, place = {a[5], a[6], a[7]}, failure = '', advance = kind.advance or advance, act = kind.act, stale = kind.stale,
    keeping = a[1] == 'retention_trimmer' and 'ffx:idx:' .. tag .. ':retention'}
  local list, all = sources(a[1], tag, s.retention), true
  local first, found = first_source(list, a[5])
  for i = first, #list do
    local key, shift = list[i][1], list[i][2]
    local rank
    if found and i == first then
      rank = rank_behind(key, a[6], a[7])
    else
      rank = redis.call('ZCOUNT', key, '-inf', score_at(a[3], shift))
    end
    all = sweep_index(s, key, rank, s.now - shift)
    if not all then
      break
    end
  end
  return {s.now, s.processed, s.errors, all and {} or s.place, s.failure}
end)
