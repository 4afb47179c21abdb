-- KEYS: the core. ARGV: id, lease id, epoch, attempt id, retention or 0, how large a
-- summary may be, then per frame type, time or empty, payload, encoding, source,
-- correlation id, mode, TTL. Answers how many frames the stream has had, the version of
-- the summary or 0, and the positions. A refusal of one frame ends with its number.
redis.register_function('ffx_append', function(keys, a)
  local now, tag, id = now_ms(), tag_of(keys[1]), a[1]
  local x = read(keys[1], 'lifecycle_phase', 'ownership_state', 'lease_expires_at', 'current_attempt_index',
    'current_lease_id', 'current_lease_epoch', 'current_attempt_id') or {}
  local is_holder = x.current_lease_id == a[2] and x.current_lease_epoch == a[3] and x.current_attempt_id == a[4]
  local code = frames.refusal(x, is_holder, now)
  if code then
    return err(code)
  end
  local list = {}
  for i = 7, #a, 8 do
    list[#list + 1] = {type = a[i], ts = a[i + 1], payload = a[i + 2], encoding = a[i + 3], source = a[i + 4],
      correlation_id = a[i + 5], mode = a[i + 6], ttl = a[i + 7]}
  end
  local stream = 'ff:stream:' .. tag .. ':' .. id .. ':' .. x.current_attempt_index
  local s = {stream = stream, meta = stream .. ':meta',
    summary_key = 'ff:attempt:' .. tag .. ':' .. id .. ':' .. x.current_attempt_index .. ':summary',
    id = id, index = x.current_attempt_index, attempt_id = a[4], retention = assert(tonumber(a[5])), now = now,
    max_summary = assert(tonumber(a[6])), keep = true}
  local entries, bad, number = frames.append(s, list)
  if not entries then
    if bad.err then
      bad = err('invalid_input', (string.gsub(bad.err, '^ERR invalid_input: ', '')))
    end
    if number then
      append(bad, tostring(number))
    end
    return bad
  end
  return ok(s.count, s.summary and s.summary.version or 0, entries)
end)
