-- The functions for the secrets that sign waitpoints.
redis.register_function('ff_rotate_waitpoint_hmac_secret', function(keys, args)
  local key, kid, secret, grace = keys[1], args[1], args[2], tonumber(args[3] or '')
  if not is_set(kid) or string.find(kid, ':', 1, true) then
    return err('invalid_kid')
  elseif not is_set(secret) or not waitpoints.from_hex(secret) then
    return err('invalid_secret_hex')
  elseif not grace or grace < 0 or not is_whole(grace) then
    return err('invalid_grace_ms')
  end
  local now, store = now_ms(), read_all(key)
  local old = store.current_kid
  if old == kid then
    local stored = store['secret:' .. kid]
    if stored and stored ~= secret then
      return err('rotation_conflict', kid)
    elseif not stored then
      redis.call('HSET', key, 'secret:' .. kid, secret)
    end
    return ok('noop', kid)
  end
  local collected = waitpoints.install_secret(key, store, kid, secret, now, grace)
  return ok('rotated', old or '', kid, tostring(collected))
end)

redis.register_function('ff_list_waitpoint_hmac_kids', function(keys)
  local now, store, list = now_ms(), read_all(keys[1]), {}
  for kid, expires_at in pairs(waitpoints.retired(store)) do
    if waitpoints.is_valid(expires_at, now) then
      append(list, kid, expires_at)
    end
  end
  return ok(store.current_kid or '', tostring(#list / 2), unpack(list))
end)
