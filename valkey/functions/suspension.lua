-- Suspensions: an execution gives up its lease and waits for signals, an operator or
-- a timeout.
do

-- A text of a condition; nil when it is something else.
local function text(v, default)
  if not v then
    return default
  elseif type(v) == 'string' or type(v) == 'number' then
    return tostring(v)
  end
end

-- A condition is either a composite tree or a list of matchers, of which all or a
-- minimum count must have taken a signal. Returns nil for what is no condition. A tree
-- of another version can only be ended by an operator or a timeout.
local function parse_condition(json)
  local d = decode(json)
  if type(d) ~= 'table' then
    return nil
  elseif d.composite then
    local tree = (not d.v or tonumber(d.v) == 1) and d.tree
    if tree == cjson.null then
      return nil
    end
    return {composite = true, tree = tree, tree_json = tree and cjson.encode(tree) or ''}
  end

  local c = {kind = text(d.condition_type, 'signal_set'), mode = text(d.signal_match_mode, 'any'),
    minimum = tonumber(d.minimum_signal_count or 1), count = 0, matchers = {}}
  local names = d.required_signal_names or {}
  if not c.kind or not c.mode or type(names) ~= 'table' or not c.minimum and c.mode ~= 'all' then
    return nil
  end
  for i, name in ipairs(names) do
    name = text(name)
    if not name then
      return nil
    end
    c.matchers[i] = {name = name}
  end
  if #c.matchers == 0 then
    c.matchers[1] = {name = ''}
  end
  return c
end

-- Writes the condition of a waitpoint, whose id may have been used before.
local function write_condition(key, c, now)
  redis.call('DEL', key)
  if c.composite then
    redis.call('HSET', key, 'condition_type', 'composite', 'composite', '1', 'match_mode', 'composite',
      'minimum_signal_count', '1', 'total_matchers', '0', 'satisfied_count', '0', 'closed', '0',
      'updated_at', now, 'tree_json', c.tree_json)
    return
  end
  local fields = {'condition_type', c.kind, 'match_mode', c.mode,
    'minimum_signal_count', tostring(c.minimum), 'total_matchers', #c.matchers,
    'satisfied_count', c.count, 'closed', '0', 'updated_at', now}
  for i, m in ipairs(c.matchers) do
    local matcher = 'matcher:' .. i - 1
    append(fields, matcher .. ':name', m.name, matcher .. ':satisfied', m.taken and '1' or '0',
      matcher .. ':signal_id', m.signal_id or '')
  end
  hset_all(key, fields)
end

-- The condition of a waitpoint as it stands, or nil.
function waitpoints.read_condition(key)
  local h = read_all(key)
  if not next(h) then
    return nil
  end
  local c = {closed = h.closed == '1', mode = h.match_mode, minimum = tonumber(h.minimum_signal_count or '1'),
    count = number_of(h.satisfied_count), matchers = {}}
  if h.composite == '1' then
    c.composite, c.tree = true, decode(h.tree_json)
  end
  for i = 0, number_of(h.total_matchers) - 1 do
    local matcher = 'matcher:' .. i
    c.matchers[i + 1] = {name = h[matcher .. ':name'] or '', taken = h[matcher .. ':satisfied'] ~= '0'}
  end
  return c
end

local function is_met(c)
  if c.mode == 'all' then
    return c.count >= #c.matchers
  end
  return c.count >= (c.minimum or math.huge)
end

-- The first open matcher that accepts the signal takes it; returns the number of that
-- matcher or nil.
local function take(c, s)
  for i, m in ipairs(c.matchers) do
    if not m.taken and (m.name == '' or m.name == s.name) then
      m.taken, m.signal_id = true, s.id
      c.count = c.count + 1
      return i - 1
    end
  end
end

local function list_of(v)
  return type(v) == 'table' and v or {}
end

local function contains(list, value)
  for _, v in ipairs(list_of(list)) do
    if v == value then
      return true
    end
  end
  return false
end

-- Collects the nodes of a tree that a signal to the waitpoint key can satisfy.
local function candidates(node, key, found)
  node = list_of(node)
  if node.kind == 'AllOf' then
    for _, member in ipairs(list_of(node.members)) do
      candidates(member, key, found)
    end
  elseif node.kind == 'Single' and node.waitpoint_key == key
    or node.kind == 'Count' and contains(node.waitpoints, key) then
    found[#found + 1] = node
  end
  return found
end

local function accepts(matcher, name)
  if type(matcher) ~= 'table' or not matcher.kind or matcher.kind == 'Wildcard' then
    return true
  end
  return matcher.kind == 'ByName' and matcher.name == name
end

-- What the nodes of kind Count count, by the prefix of its tokens. Nodes that count
-- the same share their tokens.
local prefixes = {DistinctSignals = 'sig:', DistinctSources = 'src:'}

local function prefix_of(node)
  return prefixes[node.count_kind] or 'wp:'
end

-- What a signal that a node accepts adds to the satisfied set.
local function token_of(node, s)
  if node.kind == 'Single' then
    return 'leaf:' .. (node.path or '')
  end
  local prefix = prefix_of(node)
  if prefix == 'sig:' then
    return prefix .. s.id
  elseif prefix == 'src:' then
    return prefix .. s.source_type .. ':' .. s.source_identity
  end
  return prefix .. s.waitpoint_id
end

-- Whether a node holds, given the tokens and how many there are of each prefix.
-- Collects the tokens of the inner nodes that do.
local function holds(node, tokens, counts, inner)
  node = list_of(node)
  if node.kind == 'Single' then
    return tokens['leaf:' .. (node.path or '')]
  elseif node.kind == 'Count' then
    return (counts[prefix_of(node)] or 0) >= (tonumber(node.n) or 1)
  elseif node.kind ~= 'AllOf' then
    return false
  end
  local all = true
  for _, member in ipairs(list_of(node.members)) do
    if not holds(member, tokens, counts, inner) then
      all = false
    elseif member.kind ~= 'Single' then
      inner[#inner + 1] = 'node:' .. (member.path or '')
    end
  end
  return all
end

-- Evaluates a tree over the satisfied set and keeps there which inner nodes hold.
local function tree_holds(tree, set_key)
  local tokens, counts, inner = {}, {}, {}
  for _, token in ipairs(redis.call('SMEMBERS', set_key)) do
    local prefix = string.match(token, '^%a+:') or ''
    tokens[token], counts[prefix] = true, (counts[prefix] or 0) + 1
  end
  if holds(tree, tokens, counts, inner) then
    return true
  elseif #inner > 0 then
    redis.call('SADD', set_key, unpack(inner))
  end
  return false
end

-- Feeds a signal to a tree; returns the effect.
local function feed_tree(tree, suspension_key, s)
  local nodes, tokens = candidates(tree, s.waitpoint_key, {}), {}
  if #nodes == 0 then
    return 'signal_ignored_not_in_condition'
  end
  for _, node in ipairs(nodes) do
    if accepts(node.matcher, s.name) then
      tokens[#tokens + 1] = token_of(node, s)
    end
  end
  if #tokens == 0 then
    return 'signal_ignored_matcher_failed'
  end
  local set_key = suspension_key .. ':satisfied_set'
  if redis.call('SADD', set_key, unpack(tokens)) == 0 then
    return 'appended_to_waitpoint_duplicate'
  end
  redis.call('SADD', set_key .. ':signals', s.id)
  return tree_holds(tree, set_key) and 'resume_condition_satisfied' or 'appended_to_waitpoint'
end

-- Feeds a signal to a condition. Returns the effect and the number of the matcher that
-- took it, if one did. What a tree has taken is stored, of the rest only c knows.
function waitpoints.feed(c, suspension_key, s)
  if c.composite then
    return feed_tree(c.tree, suspension_key, s)
  end
  local taken = take(c, s)
  if not taken then
    return 'no_op'
  end
  return is_met(c) and 'resume_condition_satisfied' or 'appended_to_waitpoint', taken
end

-- Feeds the signals that came before their suspension; tells whether they satisfy it.
local function feed_buffered(c, stream_key, suspension_key, w)
  local entries, met = redis.call('XRANGE', stream_key, '-', '+'), false
  for _, entry in ipairs(entries) do
    local fields = {}
    for i = 1, #entry[2], 2 do
      fields[entry[2][i]] = entry[2][i + 1]
    end
    local effect = waitpoints.feed(c, suspension_key, {id = fields.signal_id, name = fields.signal_name,
      source_type = fields.source_type, source_identity = fields.source_identity,
      waitpoint_id = w.id, waitpoint_key = w.key})
    met = met or effect == 'resume_condition_satisfied'
  end
  if c.composite then
    return met
  end
  return #entries > 0 and is_met(c)
end

-- Some fields of a suspension that is not closed, or nil.
local function read_open(key, ...)
  local s = read(key, 'suspension_id', 'closed_at', 'waitpoint_id', 'additional_waitpoints_json', ...)
  return s and is_set(s.suspension_id) and not is_set(s.closed_at) and s or nil
end

-- The ids of the waitpoints of a suspension, the primary one first.
function waitpoints.ids(s)
  local ids = {}
  if is_set(s.waitpoint_id) then
    ids[1] = s.waitpoint_id
  end
  for _, w in ipairs(list_of(decode(s.additional_waitpoints_json))) do
    if type(w) == 'table' and is_set(w.waitpoint_id) then
      ids[#ids + 1] = w.waitpoint_id
    end
  end
  return ids
end

-- Closes a waitpoint and, with a reason of its own, its condition. More fields of the
-- waitpoint may follow.
function waitpoints.close(tag, id, now, reason, condition_reason, ...)
  local key = 'ff:wp:' .. tag .. ':' .. id
  if redis.call('EXISTS', key) == 1 then
    redis.call('HSET', key, 'state', 'closed', 'closed_at', now, 'close_reason', reason, ...)
  end
  if condition_reason and redis.call('EXISTS', key .. ':condition') == 1 then
    redis.call('HSET', key .. ':condition', 'closed', '1', 'closed_at', now, 'closed_reason', condition_reason)
  end
end

-- The keys a composite condition keeps beside the record of its suspension.
local function composite_keys(key)
  return key .. ':satisfied_set', key .. ':satisfied_set:signals', key .. ':member_map'
end

-- Closes the record of a suspension; more of its fields may follow.
function waitpoints.close_record(key, now, reason, ...)
  redis.call('HSET', key, 'closed_at', now, 'close_reason', reason, ...)
  redis.call('DEL', composite_keys(key))
end

-- Makes a suspended execution claimable, at once or after a delay. The names of k are
-- core, suspended, eligible, delayed and timeouts.
function waitpoints.resume(k, id, x, now, delay, cause)
  local function become(...)
    redis.call('HSET', k.core, 'current_suspension_id', '', 'current_waitpoint_id', '', queued(now, ...))
  end
  redis.call('ZREM', k.timeouts, id)
  if delay > 0 then
    become('not_eligible_until_time', 'waiting_for_resume_delay', 'resume delay ' .. tostring(delay) .. 'ms' .. cause,
      'attempt_interrupted', 'delayed')
    redis.call('ZREM', k.suspended, id)
    redis.call('ZADD', k.delayed, now + delay, id)
    return 'delayed'
  end
  become('eligible_now', 'waiting_for_worker', '', 'attempt_interrupted', 'waiting')
  line_up(k.suspended, k.eligible, id, x)
  return 'waiting'
end

-- The waitpoints that a suspension has beside its primary one; nil and a refusal when
-- an argument or key of theirs is missing.
local function extra_waitpoints(keys, args)
  local count = tonumber(args[20] or '0')
  if not count then
    return nil, refuse('additional_waitpoint_count', args[20])
  end
  local list = {}
  for i = 0, count - 1 do
    local w = {id = args[21 + 2 * i], key = args[22 + 2 * i], hash = keys[19 + 3 * i], condition = keys[21 + 3 * i]}
    if not is_set(w.id) or not is_set(w.key) then
      return nil, err('additional_waitpoint_binding_malformed')
    elseif not w.condition then
      return nil, refuse('number of keys', #keys)
    end
    list[#list + 1] = w
  end
  return list
end

-- The reply to the first call with the same idempotency key, or nil.
local function earlier_outcome(key)
  local stored, reply = key and redis.call('HGET', key, 'outcome'), {1}
  if not stored then
    return nil
  end
  for part in string.gmatch(stored .. '\t', '([^\t]*)\t') do
    reply[#reply + 1] = part
  end
  return #reply > 5 and reply or nil
end

-- Ends a suspend call: remembers the reply under the idempotency key, if there is one.
local function answer(status, s, primary, extras, dedup_key)
  local reply = {1, status, s.id, primary.id, primary.key, primary.token, tostring(#extras)}
  for _, w in ipairs(extras) do
    append(reply, w.id, w.key, w.token)
  end
  if dedup_key then
    redis.call('HSET', dedup_key, 'outcome', table.concat(reply, '\t', 2))
    if s.dedup_ttl > 0 then
      redis.call('PEXPIRE', dedup_key, s.dedup_ttl)
    end
  end
  return reply
end

-- Fills in a waitpoint that was created ahead; returns nil, or the reply that refuses it.
local function read_pending(w, s)
  local x = read(w.hash, 'waitpoint_id', 'waitpoint_key', 'waitpoint_token', 'state', 'execution_id',
    'attempt_index', 'expires_at')
  if not x then
    return err('waitpoint_not_found')
  elseif x.state ~= 'pending' then
    return err('waitpoint_not_pending')
  elseif x.execution_id ~= s.execution_id or x.attempt_index ~= s.attempt_index then
    return err('invalid_waitpoint_for_execution')
  elseif is_set(x.expires_at) and number_of(x.expires_at) <= s.now then
    return err('pending_waitpoint_expired')
  elseif not is_set(x.waitpoint_token) then
    return err('waitpoint_not_token_bound')
  end
  w.id, w.key, w.token = x.waitpoint_id or '', x.waitpoint_key or '', x.waitpoint_token
end

local function create_waitpoint(w, s, c)
  redis.call('DEL', w.hash)
  redis.call('HSET', w.hash, 'waitpoint_id', w.id, 'execution_id', s.execution_id,
    'attempt_index', s.attempt_index, 'suspension_id', s.id, 'waitpoint_key', w.key,
    'waitpoint_token', w.token, 'state', 'active', 'created_at', s.now, 'activated_at', s.now,
    'expires_at', s.timeout_at, 'signal_count', '0', 'matched_signal_count', '0', 'last_signal_at', '')
  write_condition(w.condition, c, s.now)
end

-- Activates a waitpoint that was created ahead, or closes it in the same step when its
-- signals have come already.
local function activate_waitpoint(k, w, s, c, satisfied)
  redis.call('ZREM', k.pending, w.id)
  local fields = {'suspension_id', s.id, 'activated_at', s.now, 'expires_at', s.timeout_at}
  if satisfied then
    append(fields, 'state', 'closed', 'satisfied_at', s.now, 'closed_at', s.now, 'close_reason', 'resumed')
  else
    append(fields, 'state', 'active')
  end
  redis.call('HSET', w.hash, unpack(fields))
  write_condition(w.condition, c, s.now)
end

local blocking_reasons = {
  waiting_for_approval = 'waiting_for_approval',
  waiting_for_callback = 'waiting_for_callback',
  waiting_for_tool_result = 'waiting_for_tool_result',
  waiting_for_operator_review = 'paused_by_operator',
  manual_pause = 'paused_by_operator',
  paused_by_policy = 'paused_by_policy',
  paused_by_budget = 'waiting_for_budget',
}

-- Takes the lease from an execution that suspends itself.
local function give_up_lease(k, s, waitpoint_id)
  redis.call('HSET', k.core, 'current_suspension_id', s.id, 'current_waitpoint_id', waitpoint_id,
    'last_transition_at', s.now, 'last_mutation_at', s.now,
    without_lease(state('suspended', 'unowned', 'not_applicable',
      blocking_reasons[s.reason] or 'waiting_for_signal',
      'suspended: waitpoint ' .. waitpoint_id .. ' awaiting ' .. s.reason,
      'none', 'attempt_interrupted', 'suspended')))
  redis.call('HSET', k.attempt, 'attempt_state', 'suspended', 'suspended_at', s.now, 'suspension_id', s.id)
  redis.call('DEL', k.lease)
  redis.call('ZREM', k.expiry, s.execution_id)
  redis.call('SREM', k.leases, s.execution_id)
  redis.call('ZREM', k.active, s.execution_id)
  redis.call('ZREM', k.attempt_timeouts, s.execution_id)
  redis.call('XADD', k.history, 'MAXLEN', '~', s.history_maxlen, '*', 'event', 'released',
    'lease_id', s.lease_id, 'lease_epoch', s.lease_epoch, 'attempt_index', s.attempt_index,
    'attempt_id', s.attempt_id, 'reason', 'suspend', 'ts', s.now)
end

-- Notes for people which nodes of a tree each waitpoint key can satisfy.
local function write_member_map(key, tree, list)
  local fields = {}
  for _, w in ipairs(list) do
    for _, node in ipairs(candidates(tree, w.key, {})) do
      local path = node.path or ''
      append(fields, 'wp:' .. w.key .. ':' .. path, path)
    end
  end
  hset_all(key .. ':member_map', fields)
end

-- Writes the record of a suspension over the waitpoints of the list, whose first is the
-- primary one, and its place in the indexes.
local function write_suspension(k, s, c, list)
  local extras, ids = {}, {}
  for i, w in ipairs(list) do
    ids[i] = w.id
    if i > 1 then
      extras[i - 1] = {waitpoint_id = w.id, waitpoint_key = w.key}
    end
  end
  redis.call('SADD', k.waitpoints, unpack(ids))
  redis.call('HSET', k.suspension, 'suspension_id', s.id, 'execution_id', s.execution_id,
    'attempt_index', s.attempt_index, 'waitpoint_id', list[1].id, 'waitpoint_key', list[1].key,
    'additional_waitpoints_json', #extras > 0 and cjson.encode(extras) or '[]',
    'reason_code', s.reason, 'requested_by', s.requested_by, 'created_at', s.now,
    'timeout_at', s.timeout_at, 'timeout_behavior', s.timeout_behavior,
    'resume_condition_json', s.condition, 'resume_policy_json', s.policy,
    'continuation_metadata_pointer', s.pointer,
    'buffered_signal_summary_json', '{"total_count":0,"matched_count":0,"signal_names":[]}',
    'last_signal_at', '', 'satisfied_at', '', 'closed_at', '', 'close_reason', '')
  if c.composite then
    write_member_map(k.suspension, c.tree, list)
  end
  redis.call('ZADD', k.suspended, is_set(s.timeout_at) and s.timeout_at or '9999999999999', s.execution_id)
  if is_set(s.timeout_at) then
    redis.call('ZADD', k.timeouts, s.timeout_at, s.execution_id)
  end
end

-- The suspension that the arguments describe. Its numbers are nil when they are none.
local function read_suspend_args(args)
  return {execution_id = args[1], attempt_index = args[2], attempt_id = args[3], lease_id = args[4],
    lease_epoch = args[5], id = args[6], reason = args[9], requested_by = args[10], timeout_at = args[11],
    condition = args[12], policy = args[13], pointer = args[14], timeout_behavior = args[16] or 'fail',
    history_maxlen = tonumber(args[17] or '1000'), dedup_ttl = tonumber(args[19] or '0'), now = now_ms()}
end

local function is_score(v)
  local n = tonumber(v or '')
  return n and n == n
end

-- Refuses arguments that a later write would stumble over.
local function refuse_unusable(s, c, dedup_key)
  if not s.pointer then
    return refuse('number of arguments', '')
  elseif not c then
    return refuse('resume_condition_json', s.condition)
  elseif is_set(s.timeout_at) and not is_score(s.timeout_at) then
    return refuse('timeout_at', s.timeout_at)
  elseif not s.history_maxlen or not is_whole(s.history_maxlen) or s.history_maxlen < 0 then
    return refuse('lease_history_maxlen', s.history_maxlen)
  elseif dedup_key and (not s.dedup_ttl or not is_whole(s.dedup_ttl)) then
    return refuse('dedup_ttl_ms', s.dedup_ttl)
  end
end

-- nil and the last suspension when the holder may suspend the execution now, else the
-- reply that refuses.
local function refuse_suspend(k, s)
  local x = read_holder(k.core)
  if not x then
    return err('execution_not_found')
  end
  local refused = check_fence(k.core, k.history, x, s.lease_id, s.lease_epoch, s.attempt_id, false, s.now)
  if refused then
    return refused
  elseif x.current_attempt_index ~= s.attempt_index then
    return err('invalid_lease_for_suspend')
  end
  local last = read(k.suspension, 'waitpoint_id', 'closed_at')
  if last and not is_set(last.closed_at) then
    return err('already_suspended')
  end
  return nil, last or {}
end

redis.register_function('ff_suspend_execution', function(keys, args)
  local k = {core = keys[1], attempt = keys[2], lease = keys[3], history = keys[4], expiry = keys[5],
    leases = keys[6], suspension = keys[7], signals = keys[9], timeouts = keys[10], pending = keys[11],
    active = keys[12], suspended = keys[13], waitpoints = keys[14], attempt_timeouts = keys[16]}
  local extras, bad = extra_waitpoints(keys, args)
  if not extras then
    return bad
  end
  local dedup_key = is_set(args[18]) and is_set(keys[18]) and not string.find(keys[18], '^ff:noop:') and keys[18]
  local earlier = earlier_outcome(dedup_key)
  if earlier then
    return earlier
  end

  local s, ahead = read_suspend_args(args), args[15] == '1'
  local refused, last = refuse_suspend(k, s)
  if refused then
    return refused
  end
  local primary = {id = args[7], key = args[8], hash = keys[8], condition = keys[15]}
  local list = {primary, unpack(extras)}
  local c = parse_condition(s.condition or '')
  if ahead then
    refused = read_pending(primary, s)
  else
    refused = waitpoints.sign(keys[17], list, s.now)
  end
  refused = refused or refuse_unusable(s, c, dedup_key)
  if refused then
    return refused
  end

  if is_set(last.waitpoint_id) then
    redis.call('SADD', k.waitpoints, last.waitpoint_id)
  end
  redis.call('DEL', k.suspension, composite_keys(k.suspension))
  if not ahead then
    for _, w in ipairs(list) do
      create_waitpoint(w, s, c)
    end
  elseif feed_buffered(c, k.signals, k.suspension, primary) then
    activate_waitpoint(k, primary, s, c, true)
    redis.call('DEL', composite_keys(k.suspension))
    return answer('ALREADY_SATISFIED', s, primary, {}, dedup_key)
  elseif #extras > 0 then
    return err('use_pending_with_extras_unsupported')
  else
    activate_waitpoint(k, primary, s, c, false)
  end
  give_up_lease(k, s, primary.id)
  write_suspension(k, s, c, list)
  return answer('OK', s, primary, extras, dedup_key)
end)

-- The condition of the primary waitpoint stays as it is: its signals are refused since
-- the suspension they are for is over.
redis.register_function('ff_resume_execution', function(keys, args)
  local k = {core = keys[1], suspension = keys[2], timeouts = keys[5], eligible = keys[6],
    delayed = keys[7], suspended = keys[8]}
  local delay = tonumber(args[3] or '0')
  if not delay then
    return refuse('resume_delay_ms', args[3])
  end
  local now, tag = now_ms(), tag_of(k.core)
  local x = read(k.core, 'lifecycle_phase', 'created_at', 'priority', 'lane_id')
  if not x then
    return err('execution_not_found')
  end
  local s = x.lifecycle_phase == 'suspended' and read_open(k.suspension)
  if not s then
    return err('execution_not_suspended')
  end
  local public = waitpoints.resume(k, args[1], x, now, delay, '')
  for _, id in ipairs(waitpoints.ids(s)) do
    waitpoints.close(tag, id, now, 'resumed', id ~= s.waitpoint_id and 'resumed', 'satisfied_at', now)
  end
  waitpoints.close_record(k.suspension, now, 'resumed', 'satisfied_at', now)
  return ok(public)
end)

redis.register_function('ff_create_pending_waitpoint', function(keys, args)
  local core, key = keys[1], keys[2]
  local now, w = now_ms(), {id = args[3], key = args[4]}
  local x = read(core, 'lifecycle_phase', 'ownership_state', 'terminal_outcome', 'current_lease_epoch',
    'current_attempt_id', 'current_attempt_index')
  if not x then
    return err('execution_not_found')
  elseif x.lifecycle_phase ~= 'active' then
    return not_active(x)
  elseif x.ownership_state ~= 'leased' then
    return err('no_active_lease')
  elseif x.current_attempt_index ~= args[2] then
    return err('stale_lease')
  end
  local known = redis.call('HGET', key, 'state')
  if known == 'pending' or known == 'active' then
    return err('waitpoint_already_exists')
  end
  local refused = waitpoints.sign(keys[4], {w}, now)
  if refused then
    return refused
  elseif not is_score(args[5]) then
    return refuse('expires_at', args[5])
  end

  -- Signals of an earlier use of the id are not for this one.
  redis.call('DEL', key .. ':signals', key .. ':condition')
  redis.call('HSET', key, 'waitpoint_id', w.id, 'execution_id', args[1], 'attempt_index', args[2],
    'suspension_id', '', 'waitpoint_key', w.key, 'waitpoint_token', w.token, 'state', 'pending',
    'created_at', now, 'activated_at', '', 'satisfied_at', '', 'closed_at', '', 'expires_at', args[5],
    'close_reason', '', 'signal_count', '0', 'matched_signal_count', '0', 'last_signal_at', '')
  redis.call('ZADD', keys[3], args[5], w.id)
  return ok(w.id, w.key, w.token)
end)

-- An operator has to decide.
local function escalate(k, x, s, now)
  redis.call('HSET', k.core, 'last_mutation_at', now,
    state('suspended', 'unowned', 'not_applicable', 'paused_by_operator',
      'suspension escalated: timeout at ' .. s.timeout_at, 'none',
      x.attempt_state or 'attempt_interrupted', 'suspended'))
  redis.call('HSET', k.suspension, 'reason_code', 'waiting_for_operator_review', 'timeout_at', '',
    'timeout_behavior', '')
  return ok('escalate', 'suspended')
end

-- The timeout ends the execution.
local function end_suspended(k, id, x, behavior, outcome, now)
  local reason = 'suspension_timeout:' .. behavior
  redis.call('HSET', k.core, 'failure_reason', reason, 'current_suspension_id', '', 'current_waitpoint_id', '',
    ended(now, outcome, 'attempt_terminal', outcome))
  if is_set(x.current_attempt_index) then
    redis.call('HSET', attempt_key(k.core, id, x.current_attempt_index),
      'attempt_state', outcome == 'cancelled' and 'ended_cancelled' or 'ended_failure', 'ended_at', now,
      'failure_reason', reason, 'suspended_at', '', 'suspension_id', '')
    close_stream(stream_meta_key(k.core, id, x.current_attempt_index), 'suspension_timeout', now)
  end
  redis.call('ZREM', k.suspended, id)
  redis.call('ZREM', 'ff:idx:' .. tag_of(k.core) .. ':execution_deadline', id)
  redis.call('ZADD', k.terminal, now, id)
  publish_completion(x.flow_id, id, outcome)
end

local auto_resumes = {auto_resume = true, auto_resume_with_timeout_signal = true}
local timeout_outcomes = {cancel = 'cancelled', expire = 'expired', fail = 'failed'}

-- Applies what a suspension shall do when its time is over.
local function time_out(k, id, x, s, now)
  local behavior = s.timeout_behavior or 'fail'
  redis.call('ZREM', k.timeouts, id)
  if behavior == 'escalate' then
    return escalate(k, x, s, now)
  end
  local auto = auto_resumes[behavior]
  local kind = auto and 'auto_resume' or timeout_outcomes[behavior] and behavior or 'fail'
  for _, waitpoint_id in ipairs(waitpoints.ids(s)) do
    waitpoints.close(tag_of(k.core), waitpoint_id, now, 'timed_out_' .. kind, 'timed_out_' .. kind)
  end
  waitpoints.close_record(k.suspension, now, 'timed_out_' .. kind)
  if auto then
    return ok('auto_resume', waitpoints.resume(k, id, x, now, 0, ''))
  end
  end_suspended(k, id, x, behavior, timeout_outcomes[kind], now)
  return ok(behavior, timeout_outcomes[kind])
end

redis.register_function('ff_expire_suspension', function(keys, args)
  local k = {core = keys[1], suspension = keys[2], timeouts = keys[7], suspended = keys[8],
    terminal = keys[9], eligible = keys[10], delayed = keys[11]}
  local id, now = args[1], now_ms()
  local function stray(answer)
    redis.call('ZREM', k.timeouts, id)
    return ok(answer)
  end
  local x = read(k.core, 'lifecycle_phase', 'attempt_state', 'created_at', 'priority', 'lane_id', 'flow_id',
    'current_attempt_index')
  if not x then
    return stray('not_found_cleaned')
  elseif x.lifecycle_phase ~= 'suspended' then
    return stray('not_suspended_cleaned')
  end
  local s = read_open(k.suspension, 'timeout_at', 'timeout_behavior')
  if not s then
    return stray('no_active_suspension_cleaned')
  end
  local due = number_of(s.timeout_at)
  if due == 0 then
    return stray('not_yet_due')
  elseif due > now then
    return ok('not_yet_due')
  end
  return time_out(k, id, x, s, now)
end)

redis.register_function('ff_close_waitpoint', function(keys, args)
  redis.call('ZREM', keys[3], args[1])
  local w = read(keys[2], 'state')
  if not w then
    return err('waitpoint_not_found')
  elseif w.state == 'closed' or w.state == 'expired' then
    return ok('already_closed')
  elseif w.state ~= 'pending' and w.state ~= 'active' then
    return err('waitpoint_not_open')
  end
  redis.call('HSET', keys[2], 'state', 'closed', 'closed_at', now_ms(), 'close_reason', args[2] or 'proactive_close')
  return ok()
end)

end
