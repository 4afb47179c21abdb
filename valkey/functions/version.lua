do
redis.register_function('ff_version', function()
  return '34'
end)
end
