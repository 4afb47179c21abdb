-- Leases while they run: renewal, expiry, revocation.
do

redis.register_function('ff_renew_lease', function(keys, args)
  local ttl, bad = number_arg(args[6], 'lease_ttl_ms')
  if not ttl then
    return bad
  end
  local grace
  grace, bad = number_arg(args[7], 'lease_history_grace_ms')
  if not grace then
    return bad
  end
  if not is_whole(ttl + grace) then
    return refuse('lease_ttl_ms', args[6])
  end

  local core, lease, history, expiry = keys[1], keys[2], keys[3], keys[4]
  local now = now_ms()
  local x = read_holder(core, 'lease_revoked_at')
  if not x then
    return err('execution_not_found')
  end
  if is_set(x.lease_revoked_at) then
    x.ownership_state = 'lease_revoked'
  end
  local refused = check_fence(core, history, x, args[4], args[5], args[3], false, now)
  if refused then
    return refused
  end
  if x.current_attempt_index ~= args[2] then
    return err('stale_lease')
  end

  local expires, renewal = now + ttl, now + math.floor(ttl * 2 / 3)
  redis.call('HSET', core, 'lease_last_renewed_at', now, 'lease_renewal_deadline', renewal,
    'lease_expires_at', expires, 'last_mutation_at', now)
  redis.call('HSET', lease, 'last_renewed_at', now, 'renewal_deadline', renewal, 'expires_at', expires)
  redis.call('PEXPIREAT', lease, expires + grace)
  redis.call('ZADD', expiry, expires, args[1])
  return ok(tostring(expires))
end)

-- The entry in the expiry index stays after marking, for those who reclaim.
redis.register_function('ff_mark_lease_expired_if_due', function(keys, args)
  local core, expiry, history = keys[1], keys[3], keys[4]
  local function settled(reason, stray)
    if stray then
      redis.call('ZREM', expiry, args[1])
    end
    return {1, 'ALREADY_SATISFIED', reason}
  end

  local now = now_ms()
  local x = read_holder(core)
  if not x then
    return settled('execution_not_found', true)
  elseif x.lifecycle_phase ~= 'active' then
    return settled('not_active', true)
  elseif x.ownership_state == 'lease_expired_reclaimable' then
    return settled('already_expired')
  elseif x.ownership_state == 'lease_revoked' then
    return settled('already_revoked')
  elseif x.ownership_state == 'unowned' then
    return settled('unowned', true)
  elseif number_of(x.lease_expires_at) > now then
    return settled('not_yet_expired')
  end
  mark_expired(core, history, x, now)
  return ok('marked_expired')
end)

-- The execution stays active, without a lease, until it is reclaimed.
redis.register_function('ff_revoke_lease', function(keys, args)
  local core, lease, history, expiry, leases = keys[1], keys[2], keys[3], keys[4], keys[5]
  local id, expected, reason = args[1], args[2], args[3] or 'operator'
  local now = now_ms()
  local x = read_holder(core)
  if not x then
    return err('execution_not_found')
  elseif x.lifecycle_phase ~= 'active' then
    return not_active(x)
  elseif x.ownership_state == 'lease_revoked' then
    return {1, 'ALREADY_SATISFIED', 'already_revoked'}
  elseif x.ownership_state == 'lease_expired_reclaimable' then
    return {1, 'ALREADY_SATISFIED', 'already_expired'}
  elseif x.ownership_state ~= 'leased' then
    return err('no_active_lease')
  end
  local lease_id, epoch = x.current_lease_id or '', x.current_lease_epoch or ''
  if is_set(expected) and expected ~= lease_id then
    return err('stale_lease', 'expected ' .. expected .. ' but current is ' .. lease_id)
  end

  redis.call('HSET', core, 'lease_revoked_at', now, 'lease_revoke_reason', reason, 'last_mutation_at', now,
    state('active', 'lease_revoked', x.eligibility_state or 'not_applicable', 'waiting_for_worker',
      'lease revoked: ' .. reason, 'none', 'attempt_interrupted', 'active'))
  redis.call('DEL', lease)
  redis.call('ZREM', expiry, id)
  redis.call('SREM', is_set(x.current_worker_instance_id)
    and worker_leases_key(tag_of(core), x.current_worker_instance_id) or leases, id)
  add_history(history, 'revoked', 'lease_id', lease_id, 'lease_epoch', epoch,
    'attempt_index', x.current_attempt_index or '', 'attempt_id', x.current_attempt_id or '',
    'worker_id', x.current_worker_id or '', 'worker_instance_id', x.current_worker_instance_id or '',
    'reason', reason, 'ts', now)
  return ok('revoked', lease_id, epoch)
end)

end
