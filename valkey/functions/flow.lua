-- Flows: their members and edges, what an edge means for its child, and their cancellation.
do

local over = {cancelled = true, completed = true, failed = true}

-- Some fields of a flow, or nil and the reply that refuses a missing or finished one.
local function read_open_flow(key, ...)
  local flow = read(key, 'public_flow_state', ...)
  if not flow then
    return nil, err('flow_not_found')
  elseif over[flow.public_flow_state or ''] then
    return nil, err('flow_already_terminal')
  end
  return flow
end

redis.register_function('ff_create_flow', function(keys, args)
  local core, id = keys[1], args[1]
  redis.call('SADD', keys[3], id)
  if redis.call('EXISTS', core) == 1 then
    return {1, 'ALREADY_SATISFIED', id}
  end
  local now = now_ms()
  redis.call('HSET', core, 'flow_id', id, 'flow_kind', args[2], 'namespace', args[3],
    'graph_revision', '0', 'node_count', '0', 'edge_count', '0', 'public_flow_state', 'open',
    'created_at', now, 'last_mutation_at', now)
  return ok(id)
end)

redis.register_function('ff_add_execution_to_flow', function(keys, args)
  local flow_key, members, core = keys[1], keys[2], keys[4]
  local flow_id, id = args[1], args[2]
  local flow, refused = read_open_flow(flow_key, 'node_count', 'graph_revision')
  if not flow then
    return refused
  end
  local x = read(core, 'flow_id')
  if not x then
    return err('execution_not_found')
  end
  redis.call('SADD', keys[3], flow_id)
  if not is_set(x.flow_id) then
    redis.call('HSET', core, 'flow_id', flow_id)
  elseif x.flow_id ~= flow_id then
    return err('already_member_of_different_flow:' .. x.flow_id)
  end
  if redis.call('SADD', members, id) == 0 then
    return {1, 'ALREADY_SATISFIED', id, flow.node_count or '0'}
  end
  local count = number_of(flow.node_count) + 1
  redis.call('HSET', flow_key, 'node_count', count, 'graph_revision', number_of(flow.graph_revision) + 1,
    'last_mutation_at', now_ms())
  return ok(id, tostring(count))
end)

-- Tells whether staged edges lead from one execution to another, or to too many
-- to find out.
local function leads_to(prefix, from, to)
  local seen, reached = {[from] = true}, {from}
  for _, id in ipairs(reached) do
    for _, edge in ipairs(redis.call('SMEMBERS', prefix .. ':out:' .. id)) do
      local next_id = redis.call('HGET', prefix .. ':edge:' .. edge, 'downstream_execution_id')
      if next_id == to then
        return true
      elseif is_set(next_id) and not seen[next_id] then
        seen[next_id] = true
        reached[#reached + 1] = next_id
      end
    end
    if #reached > 1000 then
      return true
    end
  end
  return false
end

redis.register_function('ff_stage_dependency_edge', function(keys, args)
  local flow_key, members, edge_key = keys[1], keys[2], keys[3]
  local edge, upstream, downstream, now = args[2], args[3], args[4], args[8]
  if upstream == downstream then
    return err('self_referencing_edge')
  end
  local flow, refused = read_open_flow(flow_key, 'graph_revision', 'edge_count')
  if not flow then
    return refused
  elseif (flow.graph_revision or '0') ~= args[7] then
    return err('stale_graph_revision')
  end
  local known = redis.call('SMISMEMBER', members, upstream, downstream)
  if known[1] == 0 or known[2] == 0 then
    return err('execution_not_in_flow')
  elseif leads_to(string.sub(flow_key, 1, -6), downstream, upstream) then
    return err('cycle_detected')
  elseif redis.call('EXISTS', edge_key) == 1 then
    return err('dependency_already_exists')
  end
  redis.call('HSET', edge_key, 'edge_id', edge, 'flow_id', args[1],
    'upstream_execution_id', upstream, 'downstream_execution_id', downstream,
    'dependency_kind', args[5], 'satisfaction_condition', 'all_required', 'data_passing_ref', args[6],
    'edge_state', 'pending', 'created_at', now, 'created_by', 'engine')
  redis.call('SADD', keys[4], edge)
  redis.call('SADD', keys[5], edge)
  local revision = number_of(flow.graph_revision) + 1
  redis.call('HSET', flow_key, 'graph_revision', revision, 'edge_count', number_of(flow.edge_count) + 1,
    'last_mutation_at', now)
  return ok(edge, tostring(revision))
end)

-- What is wrong with the policy of an edge group, if anything is.
local function policy_fault(variant, on_satisfied, k)
  if variant ~= 'all_of' and variant ~= 'any_of' and variant ~= 'quorum' then
    return 'unsupported_policy_variant: ' .. tostring(variant)
  elseif variant == 'quorum' and k < 1 then
    return 'quorum k must be >= 1'
  elseif variant ~= 'all_of' and on_satisfied ~= 'cancel_remaining' and on_satisfied ~= 'let_run' then
    return 'on_satisfied required for any_of/quorum: cancel_remaining | let_run'
  end
end

redis.register_function('ff_set_edge_group_policy', function(keys, args)
  local group_key = keys[2]
  local variant, on_satisfied, k = args[1], args[2] or '', number_of(args[3])
  if redis.call('EXISTS', keys[1]) == 0 then
    return err('flow_not_found')
  end
  local fault = policy_fault(variant, on_satisfied, k)
  if fault then
    return err('invalid_input', fault)
  end
  local group = redis.call('HMGET', group_key, 'n', 'policy_variant')
  if tonumber(group[1] or '0') > 0 then
    return err('invalid_input', 'edge_group_policy_already_fixed: dependencies already staged')
  elseif group[2] == variant then
    return ok('already_set')
  end
  redis.call('HSET', group_key, 'policy_variant', variant, 'on_satisfied', on_satisfied, 'k', tostring(k),
    'n', '0', 'succeeded', '0', 'failed', '0', 'skipped', '0', 'group_state', 'pending', 'created_at', args[4])
  return ok('set')
end)

redis.register_function('ff_apply_dependency_to_child', function(keys, args)
  local core, meta, dep_key, group_key = keys[1], keys[2], keys[4], keys[8]
  local flow_id, edge, now = args[1], args[2], args[7]
  local x = read(core, 'execution_id', 'flow_id', 'lifecycle_phase', 'terminal_outcome', 'ownership_state',
    'attempt_state', 'created_at')
  if not x then
    return err('execution_not_found')
  elseif is_set(x.flow_id) and x.flow_id ~= flow_id then
    return err('execution_already_in_flow')
  elseif redis.call('EXISTS', dep_key) == 1 then
    return ok('already_applied')
  end

  redis.call('HSET', dep_key, 'edge_id', edge, 'flow_id', flow_id, 'upstream_execution_id', args[3],
    'downstream_execution_id', x.execution_id, 'dependency_kind', args[5], 'state', 'unsatisfied',
    'data_passing_ref', args[6], 'last_resolved_at', '')
  redis.call('SADD', keys[3], edge)
  redis.call('SADD', keys[7], edge)
  local open = redis.call('HINCRBY', meta, 'unsatisfied_required_count', 1)
  redis.call('HSET', meta, 'flow_id', flow_id, 'last_flow_graph_revision', args[4],
    'last_dependency_update_at', now)
  if is_set(group_key) then
    if redis.call('HSETNX', group_key, 'policy_variant', 'all_of') == 1 then
      redis.call('HSET', group_key, 'n', '1', 'succeeded', '0', 'group_state', 'pending')
    else
      redis.call('HINCRBY', group_key, 'n', 1)
    end
  end

  if x.lifecycle_phase == 'runnable' and x.terminal_outcome == 'none' then
    redis.call('HSET', core, 'last_transition_at', now, 'last_mutation_at', now,
      state('runnable', x.ownership_state or 'unowned', 'blocked_by_dependencies', 'waiting_for_children',
        open .. ' dep(s) unresolved incl ' .. edge, 'none',
        x.attempt_state or 'pending_first_attempt', 'waiting_children'))
    redis.call('ZREM', keys[5], x.execution_id)
    redis.call('ZADD', keys[6], number_of(x.created_at), x.execution_id)
  end
  return ok(tostring(open))
end)

-- How long the reconcilers leave the cancelled members of a flow to whoever cancelled
-- it; nil when the argument is no whole number of milliseconds.
local function grace_period(raw)
  if not is_set(raw) then
    return 30000
  end
  local grace = tonumber(raw)
  return grace and grace >= 0 and is_whole(grace) and grace or nil
end

redis.register_function('ff_cancel_flow', function(keys, args)
  local core, owed, backlog = keys[1], keys[4], keys[5]
  local policy = args[3]
  local grace = grace_period(args[5])
  if not grace then
    return err('invalid_grace_ms')
  end
  local flow, refused = read_open_flow(core)
  if not flow then
    return refused
  end
  local members, now = redis.call('SMEMBERS', keys[2]), now_ms()
  redis.call('HSET', core, 'public_flow_state', 'cancelled', 'cancelled_at', now, 'cancel_reason', args[2],
    'cancellation_policy', policy, 'last_mutation_at', now)
  if policy == 'cancel_all' and #members > 0 then
    for i = 1, #members, 1000 do
      redis.call('SADD', owed, unpack(members, i, math.min(i + 999, #members)))
    end
    redis.call('ZADD', backlog, now + grace, args[1])
  end
  local reply = ok(policy)
  for i, id in ipairs(members) do
    reply[i + 3] = id
  end
  return reply
end)

redis.register_function('ff_ack_cancel_member', function(keys, args)
  local owed, backlog = keys[1], keys[2]
  redis.call('SREM', owed, args[1])
  if redis.call('EXISTS', owed) == 0 then
    redis.call('ZREM', backlog, args[2])
  end
  return ok()
end)

-- Moves the tags that an old flow keeps among its own fields to their record.
local function move_tags(flow_key, tags_key)
  local fields = redis.call('HGETALL', flow_key)
  for i = 1, #fields, 2 do
    if is_tag(fields[i]) then
      redis.call('HSET', tags_key, fields[i], fields[i + 1])
      redis.call('HDEL', flow_key, fields[i])
    end
  end
end

redis.register_function('ff_set_flow_tags', function(keys, args)
  local core, tags = keys[1], keys[2]
  if #args == 0 or #args % 2 ~= 0 then
    return err('invalid_input', 'tags must be non-empty even-length key/value pairs')
  end
  local flow = read(core, 'tags_migrated')
  if not flow then
    return err('flow_not_found')
  end
  for i = 1, #args, 2 do
    if not is_tag(args[i]) then
      return err('invalid_tag_key', args[i])
    end
  end
  if flow.tags_migrated ~= '1' then
    move_tags(core, tags)
  end
  hset_all(tags, args)
  redis.call('HSET', core, 'tags_migrated', '1', 'last_mutation_at', now_ms())
  return ok(tostring(#args / 2))
end)

end
