-- What the end of an execution means for the executions that depend on it.
do

local resolved = {satisfied = true, impossible = true}

-- A waiting child becomes eligible; the state of its attempt tells how it is claimed.
local function promote(core, blocked, eligible, id, x, now)
  local attempt = x.attempt_state
  if not is_set(attempt) or attempt == 'none' then
    attempt = 'pending_first_attempt'
  end
  redis.call('HSET', core, 'last_transition_at', now, 'last_mutation_at', now,
    state('runnable', x.ownership_state or 'unowned', 'eligible_now', 'waiting_for_worker', '', 'none',
      attempt, 'waiting'))
  line_up(blocked, eligible, id, x)
end

-- A child that can no longer run ends. The lease of one that runs is left to the
-- scanners.
local function skip(core, blocked, terminal, attempt_hash, stream_meta, x, now)
  local attempt = x.attempt_state == '' and '' or 'none'
  if x.attempt_state == 'running_attempt' or x.attempt_state == 'attempt_interrupted' then
    redis.call('HSET', attempt_hash, 'attempt_state', 'ended_cancelled', 'ended_at', now,
      'failure_reason', 'dependency_impossible')
    close_stream(stream_meta, 'dependency_impossible', now)
    attempt = 'attempt_terminal'
  else
    wake_tails(tag_of(core), x.execution_id)
  end
  redis.call('HSET', core, ended(now, 'skipped', attempt, 'skipped'))
  redis.call('ZREM', blocked, x.execution_id)
  redis.call('ZADD', terminal, now, x.execution_id)
  publish_completion(x.flow_id, x.execution_id, 'skipped')
end

-- Counts an outcome where all must succeed; the group is only told. Returns what the
-- dependencies come to and whether the child waits for more of them.
local function count_for_all(meta_key, group_key, group, success, now)
  local verdict = success and 'satisfied' or 'impossible'
  local meta = redis.call('HMGET', meta_key, 'unsatisfied_required_count', 'impossible_required_count')
  local open = number_of(meta[1]) - 1
  local counts = {'last_dependency_update_at', now, 'unsatisfied_required_count', open}
  if not success then
    append(counts, 'impossible_required_count', number_of(meta[2]) + 1)
  end
  hset_all(meta_key, counts)
  if group then
    local bucket = success and 'succeeded' or 'failed'
    local told = {bucket, number_of(group[bucket]) + 1}
    if not success or open == 0 then
      append(told, 'group_state', verdict)
    end
    hset_all(group_key, told)
  end
  return verdict, open ~= 0
end

-- What a group with a count of its own comes to, if it is decided.
local function judge(group)
  local k = group.policy_variant == 'quorum' and math.max(1, number_of(group.k)) or 1
  if group.succeeded >= k then
    return 'satisfied'
  elseif group.failed + group.skipped > group.n - k then
    return 'impossible'
  end
end

-- The parents of a child that have not ended, joined with '|'.
local function running_parents(incoming_key, tag, flow_id)
  local running = {}
  if not is_set(incoming_key) or not is_set(flow_id) then
    return ''
  end
  for _, edge in ipairs(redis.call('SMEMBERS', incoming_key)) do
    local id = redis.call('HGET', 'ff:flow:' .. tag .. ':' .. flow_id .. ':edge:' .. edge, 'upstream_execution_id')
    local phase = is_set(id) and redis.call('HGET', 'ff:exec:' .. tag .. ':' .. id .. ':core', 'lifecycle_phase')
    if is_set(phase) and phase ~= 'terminal' then
      running[#running + 1] = id
    end
  end
  return table.concat(running, '|')
end

-- Stores the verdict on a group, with the parents to cancel if the rest is not wanted
-- any more.
local function decide(keys, args, group, verdict)
  local group_key, index_key, flow_id, child = keys[12], keys[14], args[4], args[5]
  local fields = {'group_state', verdict}
  if verdict == 'satisfied' then
    append(fields, 'satisfied_at', args[3])
  end
  if group.on_satisfied == 'cancel_remaining' then
    append(fields, 'cancel_siblings_pending_flag', 'true')
    append(fields, 'cancel_siblings_reason', 'sibling_quorum_' .. verdict)
    append(fields, 'cancel_siblings_pending_members', running_parents(keys[13], tag_of(group_key), flow_id))
    if is_set(index_key) and is_set(flow_id) and is_set(child) then
      redis.call('SADD', index_key, flow_id .. '|' .. child)
    end
  end
  hset_all(group_key, fields)
end

local bucket_of = {success = 'succeeded', skipped = 'skipped'}

-- Counts an outcome in a group that needs some successes only. Returns the verdict if
-- this outcome has decided the group, else nil and the reply.
local function count_for_some(keys, args, group)
  local bucket = bucket_of[args[2] or ''] or 'failed'
  redis.call('HINCRBY', keys[12], bucket, 1)
  for _, field in ipairs({'n', 'succeeded', 'failed', 'skipped'}) do
    group[field] = number_of(group[field]) + (field == bucket and 1 or 0)
  end
  local sum = group.succeeded + group.failed + group.skipped
  if sum > group.n then
    return nil, err('invariant_violation', 'edgegroup counters exceed n: ' .. sum .. '/' .. group.n)
  elseif resolved[group.group_state or ''] or group.group_state == 'cancelled' then
    return nil, ok('already_fired', '')
  end
  local verdict = judge(group)
  if not verdict then
    return nil, ok('pending', '')
  end
  decide(keys, args, group, verdict)
  return verdict
end

-- What the verdict does to the child; a child that has ended is left alone.
local function settle_child(keys, verdict, waits, pass_data, now)
  local core, blocked = keys[1], keys[7]
  local x = read(core, 'execution_id', 'flow_id', 'lane_id', 'priority', 'lifecycle_phase', 'ownership_state',
    'eligibility_state', 'terminal_outcome', 'attempt_state', 'created_at')
  if not x or x.terminal_outcome ~= 'none' then
    return ''
  elseif verdict == 'impossible' then
    skip(core, blocked, keys[6], keys[8], keys[9], x, now)
    return 'child_skipped'
  end
  local passed = pass_data and redis.call('COPY', keys[11], keys[10], 'REPLACE') == 1
  if not waits and x.lifecycle_phase == 'runnable' and x.ownership_state == 'unowned'
      and x.eligibility_state == 'blocked_by_dependencies' then
    promote(core, blocked, keys[5], x.execution_id, x, now)
  end
  return passed and 'data_injected' or ''
end

redis.register_function('ff_resolve_dependency', function(keys, args)
  local dep_key, group_key = keys[4], keys[12]
  local success, now = args[2] == 'success', args[3]
  local dep = read(dep_key, 'state', 'data_passing_ref')
  if not dep then
    return err('invalid_dependency')
  elseif resolved[dep.state or ''] then
    return ok('already_resolved')
  end
  local group = is_set(group_key) and read(group_key, 'policy_variant', 'k', 'n', 'succeeded', 'failed', 'skipped',
    'group_state', 'on_satisfied')
  redis.call('HSET', dep_key, 'state', success and 'satisfied' or 'impossible', 'last_resolved_at', now)
  redis.call('SREM', keys[3], args[1])

  local verdict, reply, waits
  if group and (group.policy_variant == 'any_of' or group.policy_variant == 'quorum') then
    verdict, reply = count_for_some(keys, args, group)
  else
    verdict, waits = count_for_all(keys[2], group_key, group, success, now)
  end
  if not verdict then
    return reply
  end
  return ok(verdict, settle_child(keys, verdict, waits, success and is_set(dep.data_passing_ref), now))
end)

-- The entry of a sibling group in its index, or nil and the reply that refuses it.
local function group_entry(args)
  if not is_set(args[1]) or not is_set(args[2]) then
    return nil, err('invalid_args', 'flow_id and downstream_eid required')
  end
  return args[1] .. '|' .. args[2]
end

local function clear_flag(group_key)
  redis.call('HDEL', group_key, 'cancel_siblings_pending_flag', 'cancel_siblings_pending_members')
end

redis.register_function('ff_drain_sibling_cancel_group', function(keys, args)
  local index_key, group_key = keys[1], keys[2]
  local entry, refused = group_entry(args)
  if not entry then
    return refused
  end
  local listed = redis.call('SREM', index_key, entry) == 1
  local exists = redis.call('EXISTS', group_key) == 1
  clear_flag(group_key)
  return ok(not listed and 'already_drained' or exists and 'drained' or 'drained_sans_group', '')
end)

local function any_running(tag, members)
  for id in string.gmatch(members or '', '[^|]+') do
    local phase = redis.call('HGET', 'ff:exec:' .. tag .. ':' .. id .. ':core', 'lifecycle_phase')
    if is_set(phase) and phase ~= 'terminal' then
      return true
    end
  end
  return false
end

redis.register_function('ff_reconcile_sibling_cancel_group', function(keys, args)
  local index_key, group_key = keys[1], keys[2]
  local entry, refused = group_entry(args)
  if not entry then
    return refused
  elseif redis.call('SISMEMBER', index_key, entry) == 0 then
    return ok('no_op', 'not_in_set')
  end
  local group = read(group_key, 'cancel_siblings_pending_flag', 'cancel_siblings_pending_members')
  if not group or group.cancel_siblings_pending_flag ~= 'true' then
    redis.call('SREM', index_key, entry)
    return ok('sremmed_stale', group and 'flag_cleared' or 'missing_edgegroup')
  elseif any_running(tag_of(group_key), group.cancel_siblings_pending_members) then
    return ok('no_op', 'siblings_running')
  end
  clear_flag(group_key)
  redis.call('SREM', index_key, entry)
  return ok('completed_drain', '')
end)

redis.register_function('ff_evaluate_flow_eligibility', function(keys)
  local x = read(keys[1], 'lifecycle_phase', 'ownership_state', 'terminal_outcome')
  local meta = x and redis.call('HMGET', keys[2], 'impossible_required_count', 'unsatisfied_required_count')
  return ok(not x and 'not_found'
    or x.lifecycle_phase ~= 'runnable' and 'not_runnable'
    or x.ownership_state ~= 'unowned' and 'owned'
    or x.terminal_outcome ~= 'none' and 'terminal'
    or number_of(meta[1]) > 0 and 'impossible'
    or number_of(meta[2]) > 0 and 'blocked_by_dependencies'
    or 'eligible')
end)

redis.register_function('ff_promote_blocked_to_eligible', function(keys, args)
  local core, blocked, eligible, meta, unresolved = keys[1], keys[2], keys[3], keys[4], keys[5]
  local x = read(core, 'lifecycle_phase', 'ownership_state', 'eligibility_state', 'terminal_outcome',
    'attempt_state', 'created_at', 'priority', 'lane_id')
  if not x then
    return err('execution_not_found')
  elseif x.lifecycle_phase ~= 'runnable' then
    return err('not_runnable')
  elseif x.eligibility_state ~= 'blocked_by_dependencies' then
    return err('not_blocked_by_deps')
  elseif x.terminal_outcome ~= 'none' then
    return err('terminal')
  end
  local open = number_of(redis.call('HGET', meta, 'unsatisfied_required_count'))
  local listed = redis.call('SCARD', unresolved)
  if open > 0 or listed > 0 then
    return err('deps_not_satisfied', tostring(open), tostring(listed))
  end
  promote(core, blocked, eligible, args[1], x, args[2])
  return ok()
end)

end
