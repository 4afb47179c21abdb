-- Budgets: what may be used, what has been used, and by whom.
do

-- A number as text, in full where tostring would round it.
local function text_of(n)
  return is_whole(n) and string.format('%.0f', n) or tostring(n)
end

-- Writes the hard and the soft limits, which follow the names of the dimensions.
local function write_limits(limits_key, args, count)
  local limits = {}
  for i = 10, 9 + count do
    append(limits, 'hard:' .. args[i], args[i + count])
    append(limits, 'soft:' .. args[i], args[i + 2 * count])
  end
  hset_all(limits_key, limits)
end

redis.register_function('ff_create_budget', function(keys, args)
  local budget, id, interval, now = keys[1], args[1], tonumber(args[7] or ''), args[8]
  redis.call('SADD', keys[5], id)
  if redis.call('HEXISTS', budget, 'budget_id') == 1 then
    return {1, 'ALREADY_SATISFIED', id}
  end
  local count, bad = number_arg(args[9], 'dim_count')
  if not count then
    return bad
  elseif not args[9 + 3 * count] then
    return refuse('dim_count', args[9])
  elseif not interval then
    return refuse('reset_interval_ms', args[7])
  elseif interval > 0 and not tonumber(now) then
    return refuse('now_ms', now)
  end
  redis.call('HSET', budget, 'budget_id', id, 'scope_type', args[2], 'scope_id', args[3],
    'enforcement_mode', args[4], 'on_hard_limit', args[5], 'on_soft_limit', args[6],
    'reset_interval_ms', args[7], 'breach_count', '0', 'soft_breach_count', '0',
    'created_at', now, 'last_updated_at', now)
  write_limits(keys[2], args, count)
  if interval > 0 then
    redis.call('HSET', budget, 'next_reset_at', now + interval)
    redis.call('ZADD', keys[4], now + interval, id)
  end
  return ok(id)
end)

-- A limit as a number, without end when there is none; nil when it is unreadable.
local function limit_of(text)
  if not is_set(text) then
    return math.huge
  end
  local limit = tonumber(text)
  return limit and (limit > 0 and limit or math.huge)
end

-- The stored limits of some dimensions: hard and soft by turns.
local function read_limits(limits_key, dims)
  local fields = {}
  for _, dim in ipairs(dims) do
    append(fields, 'hard:' .. dim, 'soft:' .. dim)
  end
  return redis.call('HMGET', limits_key, unpack(fields))
end

-- Tests a report r of amounts in some dimensions, one after the other; one may occur
-- twice. Returns the soft limits, or nil and the reply that refuses the report.
local function test_limits(keys, r)
  local soft, total = {}, {}
  if #r.dims == 0 then
    return soft
  end
  local limits, used = read_limits(keys[2], r.dims), redis.call('HMGET', keys[1], unpack(r.dims))
  for i, dim in ipairs(r.dims) do
    local amount, hard = tonumber(r.amounts[i]), limit_of(limits[2 * i - 1])
    soft[i] = limit_of(limits[2 * i])
    if not amount or amount ~= math.floor(amount) then
      return nil, refuse('delta of ' .. dim, r.amounts[i])
    elseif not hard or not soft[i] then
      return nil, refuse('limit of ' .. dim, '')
    end
    total[dim] = (total[dim] or tonumber(used[i] or '0')) + amount
    if total[dim] > hard then
      redis.call('HINCRBY', keys[3], 'breach_count', 1)
      redis.call('HSET', keys[3], 'last_breach_at', r.now, 'last_breach_dim', dim, 'last_updated_at', r.now)
      return nil, {1, 'HARD_BREACH', dim, text_of(tonumber(used[i] or '0')), limits[2 * i - 1]}
    end
  end
  return soft
end

-- Adds a report to the usage, all of it or nothing. The share of an execution that is
-- named can be released later.
local function use(keys, r)
  local usage, budget, ledger = keys[1], keys[3], keys[4]
  if is_set(r.dedup_key) and redis.call('EXISTS', r.dedup_key) == 1 then
    return {1, 'ALREADY_APPLIED'}
  end
  local soft, refused = test_limits(keys, r)
  if not soft then
    return refused
  end
  local reply = {1, 'OK'}
  for i, dim in ipairs(r.dims) do
    local amount = tonumber(r.amounts[i])
    local total = redis.call('HINCRBY', usage, dim, amount)
    if is_set(r.execution_id) then
      redis.call('HINCRBY', ledger, dim, amount)
    end
    if total > soft[i] and not reply[3] then
      reply = {1, 'SOFT_BREACH', dim, text_of(total), text_of(soft[i])}
    end
  end
  if is_set(r.execution_id) then
    redis.call('SADD', keys[5], r.execution_id)
  end
  redis.call('HSET', budget, 'last_updated_at', r.now)
  if is_set(r.dedup_key) then
    redis.call('SET', r.dedup_key, '1', 'PX', 86400000)
  end
  if reply[3] then
    redis.call('HINCRBY', budget, 'soft_breach_count', 1)
  end
  return reply
end

-- Some arguments, step places apart.
local function pick(args, count, first, step)
  local list = {}
  for i = 1, count do
    list[i] = args[first + (i - 1) * step]
  end
  return list
end

-- How many dimensions a report has, or nil and the reply that refuses it. The time
-- follows them.
local function report_size(args, name)
  local count, bad = number_arg(args[1], name)
  if not count then
    return nil, bad
  elseif not args[2 + 2 * count] then
    return nil, refuse(name, args[1])
  end
  return count
end

redis.register_function('ff_report_usage_and_check', function(keys, args)
  local count, refused = report_size(args, 'dim_count')
  if not count then
    return refused
  end
  return use(keys, {dims = pick(args, count, 2, 1), amounts = pick(args, count, 2 + count, 1),
    now = args[2 + 2 * count], dedup_key = args[3 + 2 * count]})
end)

redis.register_function('ff_record_spend', function(keys, args)
  local count, refused = report_size(args, 'pair_count')
  if not count then
    return refused
  end
  return use(keys, {dims = pick(args, count, 2, 2), amounts = pick(args, count, 3, 2),
    now = args[2 + 2 * count], dedup_key = args[3 + 2 * count], execution_id = args[4 + 2 * count]})
end)

redis.register_function('ff_release_budget', function(keys, args)
  local usage, ledger, id = keys[1], keys[2], args[2]
  if not id then
    return refuse('execution_id', id)
  end
  local shares = redis.call('HGETALL', ledger)
  if #shares == 0 then
    return ok('noop')
  end
  for i = 1, #shares, 2 do
    local amount = number_of(shares[i + 1])
    if amount > 0 and redis.call('HINCRBY', usage, shares[i], -amount) < 0 then
      redis.call('HSET', usage, shares[i], '0')
    end
  end
  redis.call('DEL', ledger)
  redis.call('SREM', keys[3], id)
  return ok('released')
end)

-- A budget that is gone only leaves the schedule.
redis.register_function('ff_reset_budget', function(keys, args)
  local budget, usage, schedule = keys[1], keys[2], keys[3]
  local id, now = args[1], args[2]
  local x = read(budget, 'reset_count', 'reset_interval_ms')
  local interval = tonumber(x and x.reset_interval_ms or '0')
  if not interval then
    return refuse('reset_interval_ms', x.reset_interval_ms)
  elseif interval > 0 and not tonumber(now) then
    return refuse('now_ms', now)
  end
  redis.call('HDEL', usage, 'breached_at')
  local zeros = {}
  for i, dim in ipairs(redis.call('HKEYS', usage)) do
    zeros[2 * i - 1], zeros[2 * i] = dim, '0'
  end
  hset_all(usage, zeros)
  if x then
    redis.call('HSET', budget, 'reset_count', number_of(x.reset_count) + 1, 'last_reset_at', now,
      'last_updated_at', now, 'last_breach_at', '', 'last_breach_dim', '')
  end
  if interval <= 0 then
    redis.call('ZREM', schedule, id)
    return ok('0')
  end
  local due = now + interval
  redis.call('HSET', budget, 'next_reset_at', due)
  redis.call('ZADD', schedule, due, id)
  return ok(text_of(due))
end)

end
