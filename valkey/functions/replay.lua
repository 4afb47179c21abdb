-- Makes a finished execution runnable again.
do

-- How often an execution may be replayed: ten times unless its policy says otherwise.
local function max_replays(core_key)
  local policy = decode(redis.call('GET', (string.gsub(core_key, ':core$', ':policy'))) or '')
  return type(policy) == 'table' and tonumber(policy.max_replay_count) or 10
end

-- Opens the impossible ones of some dependencies; returns how many are open then.
local function reopen(unresolved_key, keys, args)
  local open = 0
  for i = 3, #args do
    local dep_key = keys[i + 5]
    local dep_state = redis.call('HGET', dep_key, 'state')
    if dep_state == 'impossible' then
      redis.call('HSET', dep_key, 'state', 'unsatisfied', 'last_resolved_at', '')
      redis.call('SADD', unresolved_key, args[i])
    end
    if dep_state == 'impossible' or dep_state == 'unsatisfied' then
      open = open + 1
    end
  end
  return open
end

redis.register_function('ff_replay_execution', function(keys, args)
  local core, terminal, history, blocked = keys[1], keys[2], keys[4], keys[5]
  local id = args[1]
  local x = read(core, 'lifecycle_phase', 'terminal_outcome', 'flow_id', 'replay_count',
    'created_at', 'priority', 'lane_id')
  if not x then
    return err('execution_not_found')
  elseif x.lifecycle_phase ~= 'terminal' then
    return err('execution_not_terminal')
  end
  local count = number_of(x.replay_count)
  if count >= max_replays(core) then
    return err('max_replays_exhausted')
  end
  count = count + 1
  local now = now_ms()

  local function restart(...)
    redis.call('HSET', core, 'pending_replay_attempt', '1', 'replay_count', count, 'completed_at', '',
      queued(now, ...))
  end

  if x.terminal_outcome ~= 'skipped' or not is_set(x.flow_id) then
    restart('eligible_now', 'waiting_for_worker', '', 'pending_replay_attempt', 'waiting')
    line_up(terminal, keys[3], id, x)
    add_history(history, 'replay_initiated', 'replay_count', count, 'replay_type', 'normal', 'ts', now)
    return ok('0')
  end

  local open = reopen(keys[7], keys, args)
  redis.call('HSET', keys[6], 'unsatisfied_required_count', open, 'impossible_required_count', '0',
    'last_dependency_update_at', now)
  restart('blocked_by_dependencies', 'waiting_for_children', open .. ' dep(s) unsatisfied after replay',
    'pending_replay_attempt', 'waiting_children')
  redis.call('ZREM', terminal, id)
  redis.call('ZADD', blocked, number_of(x.created_at), id)
  add_history(history, 'replay_initiated', 'replay_count', count, 'replay_type', 'skipped_flow_member', 'ts', now)
  return ok(tostring(open))
end)

end
