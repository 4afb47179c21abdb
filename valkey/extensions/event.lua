-- KEYS: the log of a partition. ARGV: the first entry to read, how many. Answers now
-- and the entries, in pairs of the id and the event. What is added later has no
-- earlier millisecond than this one: the reader of several logs needs that.
redis.register_function{function_name = 'ffx_events', flags = {'no-writes'}, callback = function(keys, a)
  local entries = {}
  for _, entry in ipairs(redis.call('XRANGE', keys[1], a[1], '+', 'COUNT', a[2])) do
    entries[#entries + 1], entries[#entries + 2] = entry[1], entry[2][2]
  end
  return {now_ms(), entries}
end}
