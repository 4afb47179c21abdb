redis.register_function{function_name = 'ffx_version', flags = {'no-writes'}, callback = function()
  return VERSION
end}
