-- Appending to the output stream of an attempt, one frame or many, and the summary that
-- frames keep up to date.
local frames = {}
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

-- The patch of a summary frame; nil and the reply that refuses it.
local function patch_of(key, f)
  if not is_set(key) then
    return nil, err('invalid_input', 'summary mode requires stream_summary key')
  elseif is_set(f.kind) and f.kind ~= 'json-merge-patch' then
    return nil, err('invalid_input', 'unsupported patch_kind')
  end
  local patch = decode(f.payload)
  if patch == nil then
    return nil, err('invalid_input', 'patch payload is not valid JSON')
  elseif type(patch) ~= 'table' or patch[1] ~= nil then
    return nil, err('invalid_input', 'patch must be a JSON object')
  end
  return patch
end

local function stored_summary(key)
  local stored = redis.call('HMGET', key, 'document', 'version')
  local document = {}
  if is_set(stored[1]) then
    document = decode(stored[1])
  end
  if type(document) ~= 'table' then
    return nil, err('corruption', 'stored summary document not decodeable')
  end
  return {document = document, version = number_of(stored[2]), first = number_of(stored[2]) == 0}
end

-- Merges the patch of a frame into the summary s, which is read when it is nil. Returns
-- it, or nil and the reply that refuses the patch.
local function patched(s, key, f)
  local patch, bad = patch_of(key, f)
  if not patch then
    return nil, bad
  end
  if not s then
    s, bad = stored_summary(key)
    if not s then
      return nil, bad
    end
  elseif s.lists then
    -- A list that was merged as an object is one or the other only when it is written.
    local good, text = pcall(cjson.encode, s.document)
    if not good then
      return nil, refuse('payload', text)
    end
    s.document = decode(text)
  end
  if not merge(s.document, patch, 0) then
    return nil, err('invalid_input', 'patch_depth_exceeded')
  end
  s.lists = string.find(f.payload, '%[%s*false') ~= nil
  s.version = s.version + 1
  f.summary_version = s.version
  return s
end

local function write_summary(key, s, now)
  local fields = {'version', s.version, 'document', s.text, 'patch_kind', 'json-merge-patch', 'last_updated_ms', now}
  if s.first then
    append(fields, 'first_applied_ms', now)
  end
  redis.call('HSET', key, unpack(fields))
end

-- A positive number within a limit, or the default.
local function limited(raw, default, limit)
  local n = tonumber(raw or '')
  return n and n > 0 and n <= limit and n or default
end

-- How many frames to keep so that those of the last two lifetimes stay, from the
-- smoothed rate of appends, which the record of the stream gets.
local function best_effort_cap(f, meta, now)
  local floor, ceiling = limited(f.floor, 64, math.huge), limited(f.ceiling, 16384, math.huge)
  local alpha = limited(f.alpha, 0.2, 1)
  local seconds = math.max(f.ttl, 1) / 1000
  local last_rate, last_at = tonumber(meta.ema_rate_hz or ''), tonumber(meta.last_append_ts_ms or '')
  local rate = floor / (2 * seconds)
  if last_rate and last_at then
    rate = alpha * 1000 / math.max(now - last_at, 1) + (1 - alpha) * last_rate
  end
  local cap = math.min(math.max(rate * seconds * 2, floor), math.max(floor, ceiling))
  meta.ema_rate_hz, meta.last_append_ts_ms, meta.maxlen_applied_last = tostring(rate), now, math.ceil(cap)
  return meta.maxlen_applied_last
end

local lasting = {durable = true, summary = true}

-- Says how a frame is written and how the stream is trimmed then. Returns the refusal
-- of an argument that cannot be used. Of summaries alone few are kept; where s.keep is
-- set they do not push out others, of which there are some when others is set.
local function plan(f, s, meta, others)
  f.trim = '~'
  if f.mode == 'summary' and not (s.keep and others) then
    f.maxlen, f.durable = 64, true
  elseif f.mode == 'best_effort' then
    local ttl = tonumber(f.ttl)
    if not ttl or ttl ~= ttl then
      return refuse('ttl_ms', f.ttl)
    end
    f.ttl = ttl
    f.maxlen = best_effort_cap(f, meta, s.now)
    return
  elseif s.retention == 0 then
    f.maxlen, f.durable = 10000, lasting[f.mode]
  else
    f.maxlen, f.durable, f.trim = s.retention, lasting[f.mode], '='
  end
  f.ttl = nil
end

local function add_frame(key, f, now)
  local entry = {'frame_type', f.type, 'ts', is_set(f.ts) and f.ts or now, 'payload', f.payload,
    'encoding', f.encoding, 'source', f.source, 'mode', f.mode}
  if is_set(f.correlation_id) then
    append(entry, 'correlation_id', f.correlation_id)
  end
  if f.summary_version then
    append(entry, 'summary_version', f.summary_version)
  end
  if f.ttl and f.ttl > 0 then
    append(entry, 'ttl_ms', f.ttl)
  end
  return redis.call('XADD', key, 'MAXLEN', f.trim, f.maxlen, '*', unpack(entry))
end

-- Adds the frames and counts them in the record of the stream, which is created with the
-- first. Returns their positions.
local function write_frames(s, list, meta)
  local fields, entries = {}, {}
  if not meta.frame_count then
    append(fields, 'stream_id', s.id .. ':' .. s.index, 'execution_id', s.id, 'attempt_id', s.attempt_id,
      'attempt_index', s.index, 'created_at', s.now, 'closed_at', '', 'closed_reason', '',
      'durability_mode', 'durable_full', 'retention_maxlen', s.retention)
  end
  local bytes, durable = number_of(meta.total_bytes), meta.has_durable_frame == '1'
  for i, f in ipairs(list) do
    entries[i] = add_frame(s.stream, f, s.now)
    bytes, durable = bytes + #f.payload, durable or f.durable
  end
  s.count = number_of(meta.frame_count) + #list
  append(fields, 'last_sequence', entries[#list], 'frame_count', s.count, 'total_bytes', bytes,
    'last_frame_at', s.now, 'has_durable_frame', durable and '1' or '0')
  if meta.maxlen_applied_last then
    append(fields, 'ema_rate_hz', meta.ema_rate_hz, 'last_append_ts_ms', meta.last_append_ts_ms,
      'maxlen_applied_last', meta.maxlen_applied_last)
  end
  redis.call('HSET', s.meta, unpack(fields))
  return entries
end

-- Frames that may be lost give the whole stream an expiry, until one comes that may not.
local function expire_stream(key, list)
  local ttl
  for _, f in ipairs(list) do
    if f.durable then
      redis.call('PERSIST', key)
      return
    elseif f.ttl and f.ttl > 0 then
      ttl = f.ttl
    end
  end
  if ttl then
    redis.call('PEXPIRE', key, math.ceil(2 * ttl))
  end
end

-- nil when the holder of a lease may append, else the code that refuses it. x has the
-- fields of the core; a lapsed lease is not recorded here.
function frames.refusal(x, is_holder, now)
  if x.lifecycle_phase ~= 'active' then
    return 'stream_closed'
  elseif x.ownership_state == 'lease_expired_reclaimable' or x.ownership_state == 'lease_revoked'
    or number_of(x.lease_expires_at) <= now or not is_holder then
    return 'stale_owner_cannot_append'
  end
end

-- Appends a list of frames, all or none, to the stream s: the keys stream, meta and
-- summary, id, index and attempt_id, retention, now, and how large a summary may be. A
-- frame has type, ts, payload, encoding, source, correlation_id, mode, and what its mode
-- needs: kind; ttl, floor, ceiling, alpha. Returns their positions and leaves the count
-- and the summary in s; or nil, the refusal, and the number of the frame that is refused.
function frames.append(s, list)
  local meta = read(s.meta, 'closed_at', 'frame_count', 'total_bytes', 'has_durable_frame',
    'ema_rate_hz', 'last_append_ts_ms') or {}
  if is_set(meta.closed_at) then
    return nil, err('stream_closed')
  end
  for i, f in ipairs(list) do
    local bad, summaries
    if f.mode == 'summary' then
      s.summary, bad = patched(s.summary, s.summary_key, f)
      summaries = s.summary and s.summary.version - 1
    end
    bad = bad or plan(f, s, meta, summaries and number_of(meta.frame_count) + i - 1 > summaries)
    if bad then
      return nil, bad, i
    end
  end
  if s.summary then
    local good, text = pcall(cjson.encode, s.summary.document)
    if not good then
      return nil, refuse('payload', text)
    elseif #text > (s.max_summary or #text) then
      return nil, err('retention_limit_exceeded', string.format('the summary would have %d bytes, more than %d', #text, s.max_summary))
    end
    s.summary.text = text
    write_summary(s.summary_key, s.summary, s.now)
  end
  local entries = write_frames(s, list, meta)
  if meta.has_durable_frame ~= '1' then
    expire_stream(s.stream, list)
  end
  wake_tails(tag_of(s.meta), s.id)
  return entries
end

end
