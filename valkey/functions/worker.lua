-- The registry of workers. Times are those of the caller.
do

redis.register_function('ff_register_worker', function(keys, args)
  local alive, caps, workers = keys[1], keys[2], keys[3]
  local ttl, bad = number_arg(args[5], 'ttl_ms')
  if not ttl then
    return bad
  end
  local now
  now, bad = number_arg(args[6], 'now_ms')
  if not now then
    return bad
  end
  if not is_whole(ttl) or ttl < 1 then
    return refuse('ttl_ms', args[5])
  end

  local known = redis.call('EXISTS', alive) == 1
  redis.call('SET', alive, '1', 'PX', ttl)
  redis.call('HSET', caps, 'worker_id', args[2], 'lanes_csv', args[3] or '', 'caps_csv', args[4] or '',
    'ttl_ms', tostring(ttl), 'registered_at_ms', tostring(now), 'last_heartbeat_ms', tostring(now))
  redis.call('PEXPIRE', caps, ttl)
  redis.call('SADD', workers, args[1])
  return ok(known and 'refreshed' or 'registered')
end)

redis.register_function('ff_heartbeat_worker', function(keys, args)
  local alive, caps = keys[1], keys[2]
  local now, bad = number_arg(args[1], 'now_ms')
  if not now then
    return bad
  end
  local ttl = tonumber(redis.call('HGET', caps, 'ttl_ms') or '')
  if not ttl or redis.call('PEXPIRE', alive, ttl) == 0 then
    return ok('not_registered')
  end
  redis.call('PEXPIRE', caps, ttl)
  redis.call('HSET', caps, 'last_heartbeat_ms', tostring(now))
  return ok('refreshed', tostring(ttl))
end)

end
