-- The functions of the output streams of attempts and of their rolling summaries.
do

-- The frame of ff_append_frame; nil and a refusal when an argument cannot be used.
local function frame_of(args)
  local retention = tonumber(args[11] or '0')
  if not retention or not is_whole(retention) or retention < 0 then
    return nil, refuse('retention_maxlen', args[11])
  elseif not args[5] then
    return nil, refuse('frame_type', nil)
  end
  return {type = args[5], ts = args[6], payload = args[7] or '', encoding = args[8] or 'utf8', correlation_id = args[9],
    source = args[10] or 'worker', mode = is_set(args[14]) and args[14] or 'durable', kind = args[15], ttl = args[16] or '0',
    floor = args[17], ceiling = args[18], alpha = args[19]}, retention
end

redis.register_function('ff_append_frame', function(keys, args)
  local now = now_ms()
  local limit = tonumber(args[13] or '65536')
  if not limit then
    return refuse('max_payload_bytes', args[13])
  elseif #(args[7] or '') > limit then
    return err('retention_limit_exceeded')
  end
  local x = read(keys[1], 'lifecycle_phase', 'ownership_state', 'lease_expires_at', 'current_attempt_index',
    'current_lease_id', 'current_lease_epoch') or {}
  local is_holder = x.current_attempt_index == args[2] and x.current_lease_id == args[3] and x.current_lease_epoch == args[4]
  local code = frames.refusal(x, is_holder, now)
  if code then
    return err(code)
  end
  local f, retention = frame_of(args)
  if not f then
    return is_set(redis.call('HGET', keys[3], 'closed_at')) and err('stream_closed') or retention
  end
  local s = {stream = keys[2], meta = keys[3], summary_key = keys[4], id = args[1], index = args[2],
    attempt_id = args[12] or '', retention = retention, now = now}
  local entries, bad = frames.append(s, {f})
  if not entries then
    return bad
  end
  return ok(entries[1], tostring(s.count), f.summary_version and tostring(f.summary_version) or '')
end)

local function is_best_effort(fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'mode' then
      return fields[i + 1] == 'best_effort'
    end
  end
  return false
end

redis.register_function('ff_read_attempt_stream', function(keys, args)
  local count = tonumber(args[3] or '') or 0
  if not (count >= 1) then
    return err('invalid_input', 'count_limit must be >= 1')
  elseif count > 10000 then
    return err('invalid_input', 'count_limit_exceeds_hard_cap')
  end
  local entries = redis.call('XRANGE', keys[1], args[1] or '-', args[2] or '+', 'COUNT', count)
  if args[4] == 'exclude_best_effort' then
    local visible = {}
    for _, entry in ipairs(entries) do
      if not is_best_effort(entry[2]) then
        visible[#visible + 1] = entry
      end
    end
    entries = visible
  end
  local meta = redis.call('HMGET', keys[2], 'closed_at', 'closed_reason')
  return ok(entries, meta[1] or '', meta[2] or '')
end)

redis.register_function('ff_read_summary', function(keys)
  local x = redis.call('HMGET', keys[1], 'document', 'version', 'patch_kind', 'last_updated_ms', 'first_applied_ms')
  return ok(x[1] or '', x[2] or '0', x[3] or '', x[4] or '0', x[5] or '0')
end)

end
