-- Conditions, and the records of suspensions, waitpoints and signals. The extensions
-- have this file too.
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
function waitpoints.parse_condition(json)
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
  local fields = 0
  for _ in pairs(h) do
    fields = fields + 1
  end
  for i = 0, math.min(number_of(h.total_matchers), fields) - 1 do
    local matcher = 'matcher:' .. i
    c.matchers[i + 1] = {name = h[matcher .. ':name'] or '', taken = h[matcher .. ':satisfied'] ~= '0',
      signal_id = h[matcher .. ':signal_id']}
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
function waitpoints.feed_buffered(c, stream_key, suspension_key, w)
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
function waitpoints.composite_keys(key)
  return key .. ':satisfied_set', key .. ':satisfied_set:signals', key .. ':member_map'
end

-- Closes the record of a suspension; more of its fields may follow.
function waitpoints.close_record(key, now, reason, ...)
  redis.call('HSET', key, 'closed_at', now, 'close_reason', reason, ...)
  redis.call('DEL', waitpoints.composite_keys(key))
end

-- Creates a waitpoint of a suspension.
function waitpoints.create(w, s, c)
  redis.call('DEL', w.hash)
  redis.call('HSET', w.hash, 'waitpoint_id', w.id, 'execution_id', s.execution_id,
    'attempt_index', s.attempt_index, 'suspension_id', s.id, 'waitpoint_key', w.key,
    'waitpoint_token', w.token, 'state', 'active', 'created_at', s.now, 'activated_at', s.now,
    'expires_at', s.timeout_at, 'signal_count', '0', 'matched_signal_count', '0', 'last_signal_at', '')
  write_condition(w.condition, c, s.now)
end

-- Activates a waitpoint that was created ahead, or closes it in the same step when its
-- signals have come already.
function waitpoints.activate(k, w, s, c, satisfied)
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

waitpoints.blocking_reasons = {
  waiting_for_approval = 'waiting_for_approval',
  waiting_for_callback = 'waiting_for_callback',
  waiting_for_tool_result = 'waiting_for_tool_result',
  waiting_for_operator_review = 'paused_by_operator',
  manual_pause = 'paused_by_operator',
  paused_by_policy = 'paused_by_policy',
  paused_by_budget = 'waiting_for_budget',
}

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
-- primary one.
function waitpoints.write_suspension(k, s, c, list)
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
end

-- Puts a suspended execution in the indexes.
function waitpoints.index_suspension(k, s)
  redis.call('ZADD', k.suspended, is_set(s.timeout_at) and s.timeout_at or '9999999999999', s.execution_id)
  if is_set(s.timeout_at) then
    redis.call('ZADD', k.timeouts, s.timeout_at, s.execution_id)
  end
end

-- Whether a signal counts once with its idempotency key.
function waitpoints.has_dedup(s)
  return s.idempotency_key ~= '' and s.dedup_ttl_ms > 0
end

-- The numbers of a signal: where they are among the arguments and what they are by
-- default, or when empty. Those that become part of a command must be whole.
local numbers = {
  {at = 14, name = 'dedup_ttl_ms', default = 86400000, empty = 0, whole = true},
  {at = 15, name = 'resume_delay_ms', default = 0},
  {at = 16, name = 'signal_maxlen', default = 1000, whole = true, least = 0},
  {at = 17, name = 'max_signals', default = 10000},
}

-- The signal that the arguments describe; nil and the reply that refuses them.
function waitpoints.read_signal(args)
  local s = {id = args[1], execution_id = args[2], waitpoint_id = args[3], name = args[4], category = args[5],
    source_type = args[6], source_identity = args[7], payload = args[8] or '', encoding = args[9] or 'json',
    idempotency_key = args[10] or '', correlation_id = args[11] or '', scope = args[12] or 'waitpoint',
    token = args[18], now = now_ms()}
  s.created_at = is_set(args[13]) and args[13] or s.now
  for _, number in ipairs(numbers) do
    local raw, n, bad = args[number.at], number.default, nil
    if raw == '' then
      n = number.empty or n
    elseif raw then
      n, bad = number_arg(raw, number.name)
    end
    if bad then
      return nil, bad
    elseif number.whole and not is_whole(n) or number.least and n < number.least then
      return nil, refuse(number.name, raw)
    end
    s[number.name] = n
  end
  return s
end

-- The execution, with more of its fields on request, and the waitpoint that a signal is
-- for; nil and the reply that refuses the signal. A waitpoint of another execution
-- counts as unknown.
function waitpoints.authenticate(k, s, unknown, ...)
  local x = read(k.core, 'lifecycle_phase', 'created_at', 'priority', 'lane_id', 'current_suspension_id', ...)
  if not x then
    return nil, err('execution_not_found')
  end
  local w = read(k.waitpoint, 'execution_id', 'suspension_id', 'waitpoint_key', 'created_at', 'state',
    'signal_count', 'matched_signal_count')
  if not w or not w.created_at or w.execution_id ~= s.execution_id then
    return nil, err(unknown)
  end
  s.waitpoint_key = w.waitpoint_key or ''
  local code = waitpoints.refuse_token(k.secrets, s.token, s.waitpoint_id, s.waitpoint_key, w.created_at, s.now)
  if code then
    redis.call('HSET', k.core, 'last_hmac_validation_failed_at', s.now)
    return nil, err(code)
  end
  return x, w
end

-- Keeps a signal; its score says where it is among those of its execution.
function waitpoints.store_signal(k, s, effect)
  redis.call('HSET', k.signal, 'signal_id', s.id, 'target_execution_id', s.execution_id,
    'target_waitpoint_id', s.waitpoint_id, 'target_scope', s.scope, 'signal_name', s.name,
    'signal_category', s.category, 'source_type', s.source_type, 'source_identity', s.source_identity,
    'correlation_id', s.correlation_id, 'idempotency_key', s.idempotency_key,
    'created_at', s.created_at, 'accepted_at', s.now, 'matched_waitpoint_id', s.waitpoint_id,
    'payload_encoding', s.encoding, 'observed_effect', effect)
  if s.payload ~= '' then
    redis.call('SET', k.payload, s.payload)
  end
  redis.call('XADD', k.signals, 'MAXLEN', '~', s.signal_maxlen, '*', 'signal_id', s.id,
    'signal_name', s.name, 'signal_category', s.category, 'source_type', s.source_type,
    'source_identity', s.source_identity, 'matched', '0', 'accepted_at', s.now)
  redis.call('ZADD', k.exec_signals, s.score or s.now, s.id)
  if waitpoints.has_dedup(s) then
    redis.call('SET', k.dedup, s.id, 'PX', s.dedup_ttl_ms)
  end
end

local matching = {resume_condition_satisfied = 1, appended_to_waitpoint = 1, appended_to_waitpoint_duplicate = 1}

-- Writes what a signal has changed of its waitpoint, which closes when it was the last
-- one needed.
function waitpoints.note_signal(k, s, w, c, effect, taken, resumes)
  local fields = {'signal_count', number_of(w.signal_count) + 1,
    'matched_signal_count', number_of(w.matched_signal_count) + (matching[effect] or 0), 'last_signal_at', s.now}
  local condition = {}
  if taken then
    append(condition, 'matcher:' .. taken .. ':satisfied', '1', 'matcher:' .. taken .. ':signal_id', s.id,
      'satisfied_count', c.count)
  end
  if resumes then
    append(fields, 'state', 'closed', 'satisfied_at', s.now, 'closed_at', s.now, 'close_reason', 'resumed')
    append(condition, 'closed', '1', 'closed_at', s.now, 'closed_reason', 'satisfied')
  end
  redis.call('HSET', k.waitpoint, unpack(fields))
  hset_all(k.condition, condition)
end

function waitpoints.is_score(v)
  local n = tonumber(v or '')
  return n and n == n
end

end
