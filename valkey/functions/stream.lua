-- Output streams of attempts and their rolling summaries.
do

local null_sentinel = '__ff_null__'

-- Puts JSON nulls for the sentinel, in a value that is taken over as it is.
local function with_nulls(v, level)
  if v == null_sentinel then
    return cjson.null
  elseif type(v) == 'table' and level <= 32 then
    for key, member in pairs(v) do
      v[key] = with_nulls(member, level + 1)
    end
  end
  return v
end

-- Merges a patch into a document. Empty and non-empty lists replace what was there, and
-- so do empty objects. Returns false when the patch is too deep.
local function merge(document, patch, level)
  if level > 16 then
    return false
  end
  for key, v in pairs(patch) do
    if v == cjson.null then
      document[key] = nil
    elseif type(v) ~= 'table' or not next(v) or v[1] then
      document[key] = with_nulls(v, level + 1)
    else
      local current = document[key]
      if type(current) ~= 'table' or current[1] ~= nil then
        current = {}
        document[key] = current
      end
      if not merge(current, v, level + 1) then
        return false
      end
    end
  end
  return true
end

-- The summary after a patch as JSON and its version; nil and the reply that refuses
-- the patch.
local function patched(key, kind, payload)
  if not is_set(key) then
    return nil, err('invalid_input', 'summary mode requires stream_summary key')
  elseif is_set(kind) and kind ~= 'json-merge-patch' then
    return nil, err('invalid_input', 'unsupported patch_kind')
  end
  local patch = decode(payload)
  if patch == nil then
    return nil, err('invalid_input', 'patch payload is not valid JSON')
  elseif type(patch) ~= 'table' or patch[1] ~= nil then
    return nil, err('invalid_input', 'patch must be a JSON object')
  end
  local stored = redis.call('HMGET', key, 'document', 'version')
  local document = {}
  if is_set(stored[1]) then
    document = decode(stored[1])
  end
  if type(document) ~= 'table' then
    return nil, err('corruption', 'stored summary document not decodeable')
  elseif not merge(document, patch, 0) then
    return nil, err('invalid_input', 'patch_depth_exceeded')
  end
  local good, text = pcall(cjson.encode, document)
  if not good then
    return nil, refuse('payload', text)
  end
  return {document = text, version = number_of(stored[2]) + 1}
end

local function write_summary(key, summary, now)
  local fields = {'version', summary.version, 'document', summary.document,
    'patch_kind', 'json-merge-patch', 'last_updated_ms', now}
  if summary.version == 1 then
    append(fields, 'first_applied_ms', now)
  end
  redis.call('HSET', key, unpack(fields))
end

-- nil when the caller may append, else the code that refuses it. A lapsed lease is not
-- recorded here.
local function refuse_append(core_key, args, now)
  local x = redis.call('HMGET', core_key, 'lifecycle_phase', 'ownership_state', 'lease_expires_at',
    'current_attempt_index', 'current_lease_id', 'current_lease_epoch')
  if x[1] ~= 'active' then
    return 'stream_closed'
  elseif x[2] == 'lease_expired_reclaimable' or x[2] == 'lease_revoked' or number_of(x[3]) <= now
    or x[4] ~= args[2] or x[5] ~= args[3] or x[6] ~= args[4] then
    return 'stale_owner_cannot_append'
  end
end

-- A positive number within a limit, or the default.
local function limited(raw, default, limit)
  local n = tonumber(raw or '')
  return n and n > 0 and n <= limit and n or default
end

-- How many frames to keep so that those of the last two lifetimes stay, from the
-- smoothed rate of appends. Returns that and the rate.
local function best_effort_cap(args, meta, ttl, now)
  local floor, ceiling = limited(args[17], 64, math.huge), limited(args[18], 16384, math.huge)
  local alpha = limited(args[19], 0.2, 1)
  local seconds = math.max(ttl, 1) / 1000
  local last_rate, last_at = tonumber(meta.ema_rate_hz or ''), tonumber(meta.last_append_ts_ms or '')
  local rate = floor / (2 * seconds)
  if last_rate and last_at then
    rate = alpha * 1000 / math.max(now - last_at, 1) + (1 - alpha) * last_rate
  end
  local cap = math.min(math.max(rate * seconds * 2, floor), math.max(floor, ceiling))
  return math.ceil(cap), rate
end

-- How a frame is written: its mode, what goes with it, and how the stream is trimmed.
-- nil and a refusal when an argument cannot be used.
local function frame_options(args, meta, now)
  local mode = is_set(args[14]) and args[14] or 'durable'
  local o = {mode = mode, retention = tonumber(args[11] or '0'), trim = '~'}
  if not o.retention or not is_whole(o.retention) or o.retention < 0 then
    return nil, refuse('retention_maxlen', args[11])
  elseif not args[5] then
    return nil, refuse('frame_type', nil)
  end
  if mode == 'summary' then
    o.maxlen, o.durable = 64, true
  elseif mode == 'best_effort' then
    o.ttl = tonumber(args[16] or '0')
    if not o.ttl or o.ttl ~= o.ttl then
      return nil, refuse('ttl_ms', args[16])
    end
    o.maxlen, o.rate = best_effort_cap(args, meta, o.ttl, now)
  elseif o.retention == 0 then
    o.maxlen, o.durable = 10000, mode == 'durable'
  else
    o.maxlen, o.durable, o.trim = o.retention, mode == 'durable', '='
  end
  return o
end

local function add_frame(key, args, o, now)
  local frame = {'frame_type', args[5], 'ts', is_set(args[6]) and args[6] or now, 'payload', args[7] or '',
    'encoding', args[8] or 'utf8', 'source', args[10] or 'worker', 'mode', o.mode}
  if is_set(args[9]) then
    append(frame, 'correlation_id', args[9])
  end
  if o.summary then
    append(frame, 'summary_version', o.summary.version)
  end
  if o.ttl and o.ttl > 0 then
    append(frame, 'ttl_ms', o.ttl)
  end
  return redis.call('XADD', key, 'MAXLEN', o.trim, o.maxlen, '*', unpack(frame))
end

-- Writes the record of a stream after a frame; creates it with the first one. Returns
-- the number of frames so far.
local function write_meta(key, args, o, meta, entry, now)
  local fields, count = {}, number_of(meta.frame_count) + 1
  if not meta.frame_count then
    append(fields, 'stream_id', args[1] .. ':' .. args[2], 'execution_id', args[1],
      'attempt_id', args[12] or '', 'attempt_index', args[2], 'created_at', now, 'closed_at', '',
      'closed_reason', '', 'durability_mode', 'durable_full', 'retention_maxlen', o.retention)
  end
  append(fields, 'last_sequence', entry, 'frame_count', count,
    'total_bytes', number_of(meta.total_bytes) + #(args[7] or ''), 'last_frame_at', now,
    'has_durable_frame', (o.durable or meta.has_durable_frame == '1') and '1' or '0')
  if o.rate then
    append(fields, 'ema_rate_hz', tostring(o.rate), 'last_append_ts_ms', now, 'maxlen_applied_last', o.maxlen)
  end
  redis.call('HSET', key, unpack(fields))
  return count
end

redis.register_function('ff_append_frame', function(keys, args)
  local stream, meta_key, now = keys[2], keys[3], now_ms()
  local limit = tonumber(args[13] or '65536')
  if not limit then
    return refuse('max_payload_bytes', args[13])
  elseif #(args[7] or '') > limit then
    return err('retention_limit_exceeded')
  end
  local code = refuse_append(keys[1], args, now)
  if code then
    return err(code)
  end
  local meta = read(meta_key, 'closed_at', 'frame_count', 'total_bytes', 'has_durable_frame',
    'ema_rate_hz', 'last_append_ts_ms') or {}
  if is_set(meta.closed_at) then
    return err('stream_closed')
  end
  local o, bad = frame_options(args, meta, now)
  if not o then
    return bad
  end
  if o.mode == 'summary' then
    o.summary, bad = patched(keys[4], args[15], args[7] or '')
    if not o.summary then
      return bad
    end
    write_summary(keys[4], o.summary, now)
  end

  local entry = add_frame(stream, args, o, now)
  local count = write_meta(meta_key, args, o, meta, entry, now)
  -- Frames that may be lost give the whole stream an expiry, until one comes that may not.
  if meta.has_durable_frame ~= '1' then
    if o.durable then
      redis.call('PERSIST', stream)
    elseif o.ttl and o.ttl > 0 then
      redis.call('PEXPIRE', stream, math.ceil(2 * o.ttl))
    end
  end
  return ok(entry, tostring(count), o.summary and tostring(o.summary.version) or '')
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
