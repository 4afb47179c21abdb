-- The secrets that sign waitpoints, and the tokens made with them. The extensions have
-- this file too.
do

-- Byte tables for string.gsub. They are filled on first use.
local byte_of, inner_pad, outer_pad = {}, {}, {}

local function fill_tables()
  for i = 0, 255 do
    local byte = string.char(i)
    byte_of[string.format('%02x', i)] = byte
    inner_pad[byte] = string.char(bit.bxor(i, 0x36))
    outer_pad[byte] = string.char(bit.bxor(i, 0x5c))
  end
end

-- The bytes that a hex text stands for, or nil when it is none.
function waitpoints.from_hex(hex)
  if #hex % 2 == 1 or string.find(hex, '%X') then
    return nil
  end
  if not byte_of['00'] then
    fill_tables()
  end
  return (string.gsub(string.lower(hex), '..', byte_of))
end

-- HMAC-SHA1 in hex. The key has gone through from_hex.
local function hmac_sha1(key, message)
  if #key > 64 then
    key = waitpoints.from_hex(redis.sha1hex(key))
  end
  key = key .. string.rep('\0', 64 - #key)
  local inner = redis.sha1hex(string.gsub(key, '.', inner_pad) .. message)
  return redis.sha1hex(string.gsub(key, '.', outer_pad) .. waitpoints.from_hex(inner))
end

local function signature(secret, id, key, created_at)
  return hmac_sha1(secret, id .. '|' .. key .. '|' .. tostring(created_at))
end

-- Compares two signatures of 40 bytes in constant time.
local function same_signature(a, b)
  local difference = 0
  for i = 1, 40 do
    difference = bit.bor(difference, bit.bxor(string.byte(a, i), string.byte(b, i)))
  end
  return difference == 0
end

-- Gives new waitpoints their tokens, signed with the current secret; returns nil, or
-- the reply that says why that cannot be.
function waitpoints.sign(store, list, now)
  if not is_set(store) then
    return err('invalid_keys_missing_hmac')
  end
  local kid = redis.call('HGET', store, 'current_kid')
  local hex = kid and redis.call('HGET', store, 'secret:' .. kid)
  if not hex then
    return err('hmac_secret_not_initialized')
  end
  local secret = waitpoints.from_hex(hex)
  if not secret then
    return err('invalid_secret')
  end
  for _, w in ipairs(list) do
    w.token = kid .. ':' .. signature(secret, w.id, w.key, now)
  end
end

-- Whether the time of a retired secret is not over.
function waitpoints.is_valid(expires_at, now)
  local expires = tonumber(expires_at or '')
  return expires and expires > 0 and expires >= now
end

-- nil when the token is that of the waitpoint, else the code that refuses it.
function waitpoints.refuse_token(store, token, id, key, created_at, now)
  if not is_set(store) then
    return 'invalid_keys_missing_hmac'
  elseif not is_set(token) then
    return 'missing_token'
  end
  local kid, digest = string.match(token, '^([^:]+):(.+)$')
  if not kid or #digest ~= 40 then
    return 'invalid_token'
  end
  local known = redis.call('HMGET', store, 'current_kid', 'secret:' .. kid, 'expires_at:' .. kid)
  if not known[1] then
    return 'hmac_secret_not_initialized'
  elseif not known[2] then
    return 'invalid_token'
  elseif kid ~= known[1] and not waitpoints.is_valid(known[3], now) then
    return 'token_expired'
  end
  local secret = waitpoints.from_hex(known[2])
  if not secret then
    return 'invalid_secret'
  elseif not same_signature(signature(secret, id, key, number_of(created_at)), digest) then
    return 'invalid_token'
  end
end

-- The key ids of a secret store with an end to their validity, by that end.
function waitpoints.retired(store)
  local ends = {}
  for field, value in pairs(store) do
    local kid = string.match(field, '^expires_at:(.*)$')
    if kid then
      ends[kid] = value
    end
  end
  return ends
end

-- Forgets the secrets whose time is over; returns how many.
local function collect_secrets(key, store, kid, now)
  local count, fields = 0, {'expires_at:' .. kid}
  for old, expires_at in pairs(waitpoints.retired(store)) do
    if old ~= store.current_kid and not waitpoints.is_valid(expires_at, now) then
      count = count + 1
      append(fields, 'expires_at:' .. old, 'secret:' .. old)
    end
  end
  redis.call('HDEL', key, unpack(fields))
  return count
end

-- Makes a secret the current one; the one before stays valid for the grace period.
-- Returns how many were forgotten.
function waitpoints.install_secret(key, store, kid, secret, now, grace)
  local old, collected = store.current_kid, collect_secrets(key, store, kid, now)
  local fields = {'current_kid', kid, 'secret:' .. kid, secret}
  if old then
    append(fields, 'previous_kid', old, 'previous_expires_at', now + grace, 'expires_at:' .. old, now + grace)
  end
  redis.call('HSET', key, unpack(fields))
  return collected
end

end
